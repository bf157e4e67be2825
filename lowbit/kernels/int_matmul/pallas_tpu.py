"""int_matmul on a TPU: codes become int8 in VMEM, the MXU adds in int32.

The grid runs over blocks of the output and, for the first piece, over chunks of
K; the other pieces are few channels, and lie in VMEM whole.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from lowbit.kernels import grid as grid_lib
from lowbit.kernels import storage
from lowbit.kernels.int_matmul import parts as parts_lib
from lowbit.kernels.int_matmul import pieces, tuned

VMEM = 64 * 2**20  # Bytes that the blocks may take.


def reasons(parts: tuple[parts_lib.Part, ...]) -> list[str]:
  """Why the kernel cannot take parts in whole chunks."""
  found = [why for p in parts for why in pieces.reasons(p, lane=False)]
  rest = sum(p.size for p in parts[1:])
  if rest * (256 + 512) > VMEM // 4:
    found.append(f'{rest} channels behind the first part do not stay in VMEM')
  return found


def int_matmul(parts, dtype, *, tiles=None, interpret=False) -> jax.Array:
  """As `reference.int_matmul`, for parts in whole chunks."""
  first = parts[0]
  m, n = first.x.shape[0], first.op.columns
  chunks = first.size // pieces.chunk_of(first)
  bits = first.op.storage.format.storage_bits
  tiles = tiles or tuned.tpu(m, chunks, n, bits)
  return _call(parts, np.dtype(dtype), tiles, interpret)


@functools.partial(jax.jit, static_argnums=(1, 2, 3))
def _call(parts, dtype, tiles, interpret):
  (m, _), n = parts[0].x.shape, parts[0].op.columns
  bm, bn = tiles.block_m, tiles.block_n
  rows = tuned.round_up(m, bm)
  all_ = tuple(pieces.build(p, rows, lane=False) for p in parts)
  steps = all_[0].words.shape[0] // tiles.chunks
  specs = tuple(
    _specs(p, tiles, steps if i == 0 else 1) for i, p in enumerate(all_)
  )
  floats = [all_[0].grouped and dtype != jnp.int32]
  y = grid_lib.pallas_call(
    functools.partial(_kernel, dtype == jnp.int32, tiles.chunks),
    grid=(rows // bm, math.ceil(n / bn), steps),
    in_specs=[specs],
    out_specs=pl.BlockSpec((bm, bn), lambda i, j, k: (i, j)),
    out_shape=jax.ShapeDtypeStruct((rows, n), dtype),
    scratch_shapes=[
      pltpu.VMEM((bm, bn), jnp.float32 if floats[0] else jnp.int32)
    ],
    compiler_params=pltpu.CompilerParams(
      dimension_semantics=('parallel', 'parallel', 'arbitrary'),
      vmem_limit_bytes=VMEM + 2**25,
    ),
    interpret=interpret,
    name='int_matmul',
  )(all_)
  return y[:m]


def _specs(piece, tiles, steps: int):
  """Block specs in the structure of a piece, cut in `steps` along K."""
  bm, bn = tiles.block_m, tiles.block_n

  def spec(a, rows: bool, columns: bool):
    count = a.shape[0]
    cut = steps > 1 and count > 1
    block = (
      count // steps if cut else count,
      bm if rows else a.shape[1],
      bn if columns else a.shape[2],
    )

    def index(i, j, k):
      return k if cut else 0, i if rows else 0, j if columns else 0

    return pl.BlockSpec(block, index)

  column = lambda a: None if a is None else spec(a, False, True)
  return pieces.Piece(
    spec(piece.x, True, False),
    spec(piece.words, False, True),
    spec(piece.x_scale, True, False),
    column(piece.w_scale),
    column(piece.zero),
    column(piece.ratio),
    piece.grouped,
    piece.chunk,
    piece.storage,
  )


def _kernel(bare, chunks, all_, out_ref, acc_ref):
  # x [units, bm, unit]   words [chunks, bytes, bn]   out, acc [bm, bn]
  k = pl.program_id(2)

  @pl.when(k == 0)
  def _():
    acc_ref[...] = jnp.zeros_like(acc_ref)

  first = all_[0]
  floats = acc_ref.dtype == jnp.float32
  if chunks == 1:
    acc_ref[...] += _chunk(first, 0, floats)
  else:

    def step(c, carry):
      acc_ref[...] += _chunk(first, c, floats)
      return carry

    jax.lax.fori_loop(0, chunks, step, None)

  @pl.when(k == pl.num_programs(2) - 1)
  def _():
    y = acc_ref[...]
    if bare:
      y = y >> 4 if first.high else y
    else:
      y = y if floats else _scaled(y, first)
      for piece in all_[1:]:
        rest = _all_chunks(piece, piece.grouped)
        y += rest if piece.grouped else _scaled(rest, piece)
    out_ref[...] = y.astype(out_ref.dtype)


def _scaled(sums, piece):
  return sums.astype(jnp.float32) * piece.x_scale[0] * piece.w_scale[0]


def _all_chunks(piece, floats: bool):
  return sum(_chunk(piece, c, floats) for c in range(piece.words.shape[0]))


def _codes(piece, words):
  """Codes of a chunk, int32; or int8, times 16, if the piece is `high`."""
  if not piece.high:
    fields = storage.unpack(words, piece.storage, piece.chunk)
    return storage.integers(fields, piece.storage)
  words = words.astype(jnp.int32)
  lanes = [pieces.high_nibbles(words, lane) for lane in (0, 1)]
  return jnp.concatenate(lanes, axis=0)


def _chunk(piece, c, floats: bool):
  """int32 sums over chunk c, or scaled float32 ones: [bm, bn]."""
  codes = _codes(piece, piece.words[c])
  unit = piece.x.shape[2]
  at = lambda ref, u: ref[u if ref.shape[0] > 1 else 0]
  total = None
  for s in range(piece.per_chunk):
    u = c * piece.per_chunk + s
    zero, ratio = (
      None if ref is None else at(ref, u) for ref in (piece.zero, piece.ratio)
    )
    w = codes[s * unit : (s + 1) * unit]
    w = w if piece.high else parts_lib.fold(w, zero, ratio)
    sums = jnp.dot(piece.x[u], w, preferred_element_type=jnp.int32)
    if floats:
      sums = sums.astype(jnp.float32) * at(piece.x_scale, u)
      sums = sums * at(piece.w_scale, u)
    total = sums if total is None else total + sums
  return total
