"""int_matmul on a TPU: codes become int8 in VMEM, the MXU adds in int32.

All operands are read as they are stored, so that XLA lays out nothing anew.
The grid runs over blocks of the output and, for the first part, over steps of
K; x stays resident for a whole row of blocks, and so is read once. The other
parts are few channels, and lie in VMEM whole.
"""

import dataclasses
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
from lowbit.kernels.quantize_rows import body

ROWS = 32  # Of x, quantized at once: a tile of int8.


def reasons(parts: tuple[parts_lib.Part, ...]) -> list[str]:
  """Why the kernel cannot take the parts."""
  found = []
  for part in parts:
    if not part.size:
      found.append('a part has no channels')
    elif (unit := unit_of(part)) < pieces.LEAST:
      found.append(
        f'groups of {part.group} of K={part.size} codes leave units of {unit}, '
        f'fewer than the {pieces.LEAST} of an int8 product'
      )
  if not found and _tiles(parts) is None:
    sizes = [part.size for part in parts]
    found.append(f'K={sizes} channels do not stay in VMEM')
  return found


def _tiles(parts) -> tuned.Tiles | None:
  x, sizes = parts[0].x, [part.size for part in parts]
  stored = [part.op.storage for part in parts]
  # Blocks are held twice, one to work on and one on its way; codes once.
  held = 2 * x.dtype.itemsize + _is_float(parts[0])
  return tuned.tpu(x.shape[0], sizes, parts[0].op.columns, stored, held)


def _is_float(part) -> bool:
  """Whether x is to be quantized first."""
  return part.x_scale is None


def int_matmul(parts, dtype, *, tiles=None, interpret=False) -> jax.Array:
  """As `reference.int_matmul`, for parts without `reasons`."""
  return _call(parts, np.dtype(dtype), tiles or _tiles(parts), interpret)


def with_floats(part: parts_lib.Part, x: jax.Array) -> parts_lib.Part:
  """`part` of x as int8@token, with float32 or bfloat16 x in its place.

  The kernel then quantizes a block of rows when it is first met.
  """
  return dataclasses.replace(part, x=x, x_scale=None)


@functools.partial(jax.jit, static_argnums=(1, 2, 3))
def _call(parts, dtype, tiles, interpret):
  (m, size), n = parts[0].x.shape, parts[0].op.columns
  bm, bn = tiles.block_m, tiles.block_n
  step = tiles.chunks * parts[0].op.storage.chunk
  steps = 1 if step >= size else size // step
  specs = tuple(
    _specs(p, tiles, steps if i == 0 else 1) for i, p in enumerate(parts)
  )
  floats = parts[0].grouped and dtype != jnp.int32
  zeros = [
    pltpu.VMEM((p.op.zero.shape[0], bn), jnp.int32)
    for p in parts
    if p.op.zero is not None
  ]
  sums = pltpu.VMEM((bm, bn), jnp.float32 if floats else jnp.int32)
  codes, columns = [], 'parallel'
  if _is_float(parts[0]):  # Codes stay from one block of columns to the next.
    codes = [pltpu.VMEM((bm, size), jnp.int8), pltpu.VMEM((bm, 1), jnp.float32)]
    columns = 'arbitrary'
  return grid_lib.pallas_call(
    functools.partial(_kernel, dtype == jnp.int32),
    grid=(math.ceil(m / bm), math.ceil(n / bn), steps),
    in_specs=[specs],
    out_specs=pl.BlockSpec((bm, bn), lambda i, j, k: (i, j)),
    out_shape=jax.ShapeDtypeStruct((m, n), dtype),
    scratch_shapes=[sums, *codes, *zeros],
    compiler_params=pltpu.CompilerParams(
      dimension_semantics=('parallel', columns, 'arbitrary'),
      vmem_limit_bytes=tuned.VMEM + 2**25,
    ),
    interpret=interpret,
    name='int_matmul',
  )(parts)


def _specs(part: parts_lib.Part, tiles: tuned.Tiles, steps: int):
  """Block specs in the structure of a part, its bytes cut in `steps`."""
  bm, bn = tiles.block_m, tiles.block_n

  def row(a):
    if a is None:
      return None
    return pl.BlockSpec((bm, a.shape[1]), lambda i, j, k: (i, 0))

  def column(a):
    if a is None:
      return None
    return pl.BlockSpec((a.shape[0], bn), lambda i, j, k: (0, j))

  bytes_, cut = part.op.words.shape[0] // steps, steps > 1
  words = lambda i, j, k: (k if cut else 0, j)
  op = dataclasses.replace(
    part.op,
    words=pl.BlockSpec((bytes_, bn), words),
    scale=column(part.op.scale),
    zero=column(part.op.zero),
  )
  return parts_lib.Part(
    row(part.x), row(part.x_scale), op, column(part.channel), part.x_group
  )


def unit_of(part: parts_lib.Part) -> int:
  """Codes of a chunk that share scales, zero points and ratios."""
  unit = part.op.storage.chunk
  for group in (part.x_group, part.op.group):
    unit = math.gcd(unit, group) if group < part.size else unit
  return unit


def _kernel(bare, parts, out_ref, acc_ref, *rest):
  # x [bm, K]   words [bytes, bn]   scales [bm, groups], [groups, bn]
  # out, acc [bm, bn]   codes [bm, K]   zeros [groups, bn]
  k, left = pl.program_id(2), iter(rest)
  if _is_float(parts[0]):
    x_ref, codes_ref, scale_ref = parts[0].x, next(left), next(left)
    first = dataclasses.replace(parts[0], x=codes_ref, x_scale=scale_ref)
    parts = (first, *parts[1:])

    @pl.when((pl.program_id(1) == 0) & (k == 0))
    def _():
      _quantize(x_ref, codes_ref, scale_ref)

  zeros = [None if p.op.zero is None else next(left) for p in parts]

  @pl.when(k == 0)
  def _():
    acc_ref[...] = jnp.zeros_like(acc_ref)
    for part, ref in zip(parts, zeros):
      if ref is not None:
        ref[...] = part.op.zero[...].astype(jnp.int32)

  first, floats = parts[0], acc_ref.dtype == jnp.float32
  s = first.op.storage
  count = first.op.words.shape[0] // s.rows

  def step(c, carry):
    at = pl.multiple_of(c * s.rows, s.rows)
    acc_ref[...] += _chunk(first, at, k * count + c, s.chunk, floats, zeros[0])
    return carry

  if count:
    jax.lax.fori_loop(0, count, step, None)
  if tail := first.size % s.chunk:  # Then all of K is one step.
    acc_ref[...] += _chunk(first, count * s.rows, count, tail, floats, zeros[0])

  @pl.when(k == pl.num_programs(2) - 1)
  def _():
    y = acc_ref[...]
    if bare:
      y = y >> 4 if _is_high(first) else y
    else:
      y = y if floats else _scaled(y, first)
      for part, zero in zip(parts[1:], zeros[1:]):
        rest = _all_chunks(part, part.grouped, zero)
        y += rest if part.grouped else _scaled(rest, part)
    out_ref[...] = y.astype(out_ref.dtype)


def _quantize(x_ref, codes_ref, scale_ref):
  """int8 codes and scales of rows, as `quantize` has them bit for bit."""

  def rows(r, carry):
    mine = pl.ds(pl.multiple_of(r * ROWS, ROWS), ROWS)
    x = x_ref[mine, :].astype(jnp.float32)
    scale = body.scale_of(body.row_largest(x), 127)
    scale_ref[mine, :] = scale
    codes = body.codes_of(x, scale, 127, jnp.rint)
    codes_ref[mine, :] = codes.astype(jnp.int8)
    return carry

  jax.lax.fori_loop(0, x_ref.shape[0] // ROWS, rows, None)


def _is_high(part) -> bool:
  """Whether weights are multiplied as 16 q; see `pieces.high_nibbles`."""
  plain = part.op.zero is None and part.channel is None
  return plain and pieces.is_high(part.op.storage)


def _scaled(sums, part):
  y = sums.astype(jnp.float32) * part.x_scale[...]
  return y * _less(part.w_scale[...], part)


def _less(scale, part):
  """Scales of weights, without the 16 of `_is_high`."""
  return scale * np.float32(1 / 16) if _is_high(part) else scale


def _all_chunks(part, floats: bool, zero):
  s, total = part.op.storage, None
  for c in range(math.ceil(part.size / s.chunk)):
    size = min(part.size - c * s.chunk, s.chunk)
    sums = _chunk(part, c * s.rows, c, size, floats, zero)
    total = sums if total is None else total + sums
  return total


def _codes(part, words, size: int):
  """Codes of a chunk, int32; or int8, times 16, if the part is high."""
  s = part.op.storage
  if not _is_high(part):
    return storage.integers(storage.unpack(words, s, size), s)
  if size < s.chunk:  # Lanes of so many rows are joined as int32.
    codes = storage.integers(storage.unpack(words, s, size), s)
    return (codes << 4).astype(jnp.int8)
  words = words.astype(jnp.int32)
  lanes = [pieces.high_nibbles(words, lane) for lane in (0, 1)]
  return jnp.concatenate(lanes, axis=0)


def _chunk(part, at, c, size: int, floats: bool, zero_ref):
  """int32 sums over chunk c, or scaled float32 ones: [bm, bn].

  Args:
    part: Of references.
    at: The chunk's first row in the block of bytes.
    c: The chunk along all of K; may be traced.
    size: Codes of the chunk.
    floats: Whether sums of units are scaled.
    zero_ref: int32 zero points or None.
  """
  op, unit, chunk = part.op, unit_of(part), part.op.storage.chunk
  codes = _codes(part, op.words[pl.ds(at, op.storage.count(size)), :], size)
  start = c * chunk
  start = start if isinstance(c, int) else pl.multiple_of(start, chunk)
  x, total = part.x[:, pl.ds(start, size)], None
  for first in range(0, size, unit):
    cut = slice(first, min(first + unit, size))
    group = lambda g, first=first: _divide(start + first, g)
    w = codes[cut]
    if not _is_high(part):
      ratio = None if part.channel is None else op.scale
      g = group(op.group)
      w = parts_lib.fold(w, _row(zero_ref, g), _row(ratio, g))
    sums = jnp.dot(x[:, cut], w, preferred_element_type=jnp.int32)
    if floats:
      w_scale = _row(part.w_scale, group(op.group))
      sums = sums.astype(jnp.float32) * _column(
        part.x_scale, group(part.x_group)
      )
      sums = sums * _less(w_scale, part)
    total = sums if total is None else total + sums
  return total


def _divide(x, y: int):
  return x // y if isinstance(x, int) else jax.lax.div(x, jnp.int32(y))


def _row(ref, g):
  """Row g of [groups, bn], or the only one: [1, bn]."""
  if ref is None or ref.shape[0] == 1:
    return ref if ref is None else ref[...]
  return ref[pl.ds(g, 1), :]


def _column(ref, g):
  """Column g of [bm, groups], or the only one: [bm, 1].

  By a sum over lanes, of which all but one are zeros: g may be traced.
  """
  scales = ref[...]
  if scales.shape[1] == 1:
    return scales
  lane = jax.lax.broadcasted_iota(jnp.int32, scales.shape, 1)
  mine = jnp.where(lane == g, scales, np.float32(0))
  return jnp.sum(mine, axis=1, keepdims=True)
