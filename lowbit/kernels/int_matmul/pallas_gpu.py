"""int_matmul on a GPU (Triton): int8 tensor cores, a unit of K at a time.

A unit lies in one lane of the packed bytes, so that its codes are read as a
range of bytes, shifted and masked, and never interleaved.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu

from lowbit.kernels import storage as storage_lib
from lowbit.kernels.int_matmul import parts as parts_lib
from lowbit.kernels.int_matmul import pieces, tuned


def reasons(parts: tuple[parts_lib.Part, ...]) -> list[str]:
  """Why the kernel cannot take parts in whole chunks."""
  found = [why for p in parts for why in pieces.reasons(p)]
  for part in parts:
    unit = pieces.unit_of(part)
    if unit & (unit - 1):
      found.append(f'units of {unit} codes are no power of two')
  m, n = parts[0].x.shape[0], parts[0].op.columns
  if tuned.gpu(m, 0, n, 0) is None:
    found.append(f'N={n} is not a multiple of 16, the smallest block')
  return found


def int_matmul(parts, dtype, *, tiles=None, interpret=False) -> jax.Array:
  """As `reference.int_matmul`, for parts in whole chunks."""
  first = parts[0]
  m, n = first.x.shape[0], first.op.columns
  chunks = first.size // pieces.chunk_of(first)
  bits = first.op.storage.format.storage_bits
  tiles = tiles or tuned.gpu(m, chunks, n, bits)
  return _call(parts, np.dtype(dtype), tiles, interpret)


@functools.partial(jax.jit, static_argnums=(1, 2, 3))
def _call(parts, dtype, tiles, interpret):
  (m, _), n = parts[0].x.shape, parts[0].op.columns
  bm, bn = tiles.block_m, tiles.block_n
  rows = tuned.round_up(m, bm)
  all_ = tuple(pieces.build(p, rows) for p in parts)
  y = pl.pallas_call(
    functools.partial(_kernel, dtype == jnp.int32),
    grid=(rows // bm, n // bn),
    in_specs=[tuple(_specs(p, bm, bn) for p in all_)],
    out_specs=pl.BlockSpec((bm, bn), lambda i, j: (i, j)),
    out_shape=jax.ShapeDtypeStruct((rows, n), dtype),
    compiler_params=plgpu.CompilerParams(
      num_warps=tiles.num_warps, num_stages=tiles.num_stages
    ),
    interpret=interpret,
    name='int_matmul',
  )(all_)
  return y[:m]


def _specs(piece, bm: int, bn: int):
  """Block specs in the structure of a piece: all of K."""

  def row(a):
    return pl.BlockSpec((a.shape[0], bm, a.shape[2]), lambda i, j: (0, i, 0))

  def column(a):
    if a is None:
      return None
    return pl.BlockSpec((a.shape[0], a.shape[1], bn), lambda i, j: (0, 0, j))

  return pieces.Piece(
    row(piece.x),
    column(piece.words),
    row(piece.x_scale),
    column(piece.w_scale),
    column(piece.zero),
    column(piece.ratio),
    piece.grouped,
    piece.chunk,
    piece.storage,
  )


def _kernel(bare, all_, out_ref):
  # x [units, bm, unit]   words [chunks, bytes, bn]   out [bm, bn]
  y = jnp.zeros(out_ref.shape, jnp.int32 if bare else jnp.float32)
  for piece in all_:
    floats = piece.grouped and not bare
    zeros = jnp.zeros(out_ref.shape, jnp.float32 if floats else jnp.int32)
    step = functools.partial(_unit, piece, floats)
    sums = jax.lax.fori_loop(0, piece.x.shape[0], step, zeros)
    if bare:
      sums = sums >> 4 if piece.high else sums
    elif not floats:
      sums = sums.astype(jnp.float32) * piece.x_scale[0] * piece.w_scale[0]
    y += sums
  out_ref[...] = y.astype(out_ref.dtype)


def _unit(piece, floats, u, total):
  """Adds the sums of unit u to `total`."""
  at = lambda ref: ref[u if ref.shape[0] > 1 else 0]
  side = lambda ref: None if ref is None else at(ref)
  unit = piece.x.shape[2]
  c, i = divide(u, piece.per_chunk)
  if piece.high:
    w = _high(piece.words, c, i, unit)
  else:
    fields = read(piece.words, piece.storage, c, i, unit)
    codes = storage_lib.integers(fields, piece.storage)
    w = parts_lib.fold(
      codes, side(piece.zero), side(piece.ratio), parts_lib.rint_by_floor
    )
  sums = jnp.dot(piece.x[u], w, preferred_element_type=jnp.int32)
  if floats:
    sums = sums.astype(jnp.float32) * at(piece.x_scale) * at(piece.w_scale)
  return total + sums


def _high(words, c, i, unit: int):
  """int8 16 q of unit i of chunk c: `pieces.high_nibbles` of a traced lane."""
  lane, at = divide(i * unit, 128)
  part = words[c, pl.ds(at, unit), :].astype(jnp.int32)
  return ((part << (4 - 4 * lane)) & 0xF0).astype(jnp.int8)


def divide(x, y: int):
  """Quotient and rest of a traced x >= 0, without the care for signs."""
  x, y = jnp.int32(x), jnp.int32(y)
  return jax.lax.div(x, y), jax.lax.rem(x, y)


def read(words, s: storage_lib.Storage, c, i, unit: int):
  """Fields of unit i of chunk c, int32 [unit, bn], from a ref of bytes.

  Args:
    words: Ref to uint8 [chunks, bytes, bn].
    s: How codes lie in them.
    c: Chunk, may be traced.
    i: Unit in the chunk, may be traced.
    unit: Codes of a unit; divides a lane of each plane.
  """
  if s.ternary:
    lane, at = divide(i * unit, 128)
    value = words[c, pl.ds(at, unit), :].astype(jnp.int32)
    quotient = value
    for j in range(4):  # To digit `lane`: as many divisions by 3.
      third = storage_lib.divide_by_3(quotient)
      quotient = jnp.where(lane > j, third, quotient)
    return quotient - 3 * storage_lib.divide_by_3(quotient)
  fields, start, shift = None, 0, 0
  for width in s.widths:
    rows = words.shape[1] if width == 8 else 32 * width
    lane, at = divide(i * unit, rows)
    part = words[c, pl.ds(start + at, unit), :].astype(jnp.int32)
    part = (part >> (lane * width)) & (2**width - 1)
    fields = part << shift if fields is None else fields | (part << shift)
    start, shift = start + rows, shift + width
  return fields
