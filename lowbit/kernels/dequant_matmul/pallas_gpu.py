"""dequant_matmul on a GPU, in Triton: codes are decoded in registers.

A program owns a block of the output and a part of K. It goes through the codes
in pieces: rows of bytes whose fields at one shift are consecutive codes of a
chunk, so that a piece meets a contiguous slice of x, and one scale a column.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton

from lowbit import formats
from lowbit.kernels import operands, storage
from lowbit.kernels.dequant_matmul import tuned

FEW = 32  # Groups of fewer codes scale the matrix, not products.
MOST = 64  # Codes of a piece: it lies in shared memory, as do those in flight.


def piece(op: operands.Operands) -> int:
  """Codes of a piece: what one block of bytes allows, and one scale.

  Small groups are taken several at a time.
  """
  s = op.storage
  size = s.rows if s.ternary else s.chunk * min(s.widths) // 8
  size = min(size, MOST)
  shared = math.gcd(size, op.group) if op.grouped else size
  if shared < FEW and min(size, FEW) % op.group == 0:
    return min(size, FEW)
  return shared


def reasons(x, op: operands.Operands) -> list[str]:
  """Why no tile fits, if none does."""
  del x
  found = []
  if piece(op) < 16:
    found.append(
      f'groups of {op.group} codes leave pieces of {piece(op)}, and tensor '
      'cores take 16'
    )
  return found


def dequant_matmul(
  x: jax.Array,
  op: operands.Operands,
  *,
  out_dtype,
  tiles: tuned.GpuTiles | None = None,
  precision=None,
  interpret: bool = False,
) -> jax.Array:
  """x [M, K] times the operands of a matrix [K, N]."""
  tiles = tiles or tuned.gpu(x.shape[0], x.dtype.itemsize, op)
  return _call(x, op, np.dtype(out_dtype), tiles, precision, interpret)


@functools.partial(jax.jit, static_argnums=(2, 3, 4, 5))
def _call(x, op, out_dtype, tiles, precision, interpret):
  m, n = x.shape[0], op.columns
  grid = (
    math.ceil(m / tiles.block_m),
    math.ceil(n / tiles.block_n),
    tiles.split_k,
  )
  inputs = {'x': x, 'words': op.words, 'scale': op.scale}
  if op.zero is not None:
    inputs['zero'] = op.zero
  if op.tensor_scale is not None:
    inputs['tensor_scale'] = op.tensor_scale
  if (table := op.storage.table) is not None and len(table) > 16:
    inputs['table'] = jnp.asarray(table)
  partial_dtype = out_dtype if tiles.split_k == 1 else jnp.float32
  out = pl.pallas_call(
    functools.partial(
      _kernel, tuple(inputs), op.bare(), piece(op), tiles, precision
    ),
    grid=grid,
    in_specs=[pl.no_block_spec] * len(inputs),
    out_specs=pl.no_block_spec,
    out_shape=jax.ShapeDtypeStruct((tiles.split_k, m, n), partial_dtype),
    compiler_params=triton.CompilerParams(
      num_warps=tiles.num_warps, num_stages=tiles.num_stages
    ),
    interpret=interpret,
    name='dequant_matmul',
  )(*inputs.values())
  if tiles.split_k == 1:
    return out[0]
  return jnp.sum(out, axis=0).astype(out_dtype)


def _kernel(names, op, unit, tiles, precision, *refs):
  # x [M, K]   words [bytes, N]   scale, zero [groups, N]   out [split, M, N]
  ref = dict(zip((*names, 'out'), refs))
  m, n = ref['x'].shape[0], ref['words'].shape[1]
  bm, bn = tiles.block_m, tiles.block_n
  i, j, part = (pl.program_id(axis) for axis in range(3))
  rows, columns = pl.ds(i * bm, bm), pl.ds(j * bn, bn)
  inside_m = None if m % bm == 0 else i * bm + jnp.arange(bm) < m
  inside_n = None if n % bn == 0 else j * bn + jnp.arange(bn) < n
  side = functools.partial(_load, mask=inside_n, axis=1)
  s, size = op.storage, ref['x'].shape[1]
  last = tiles.split_k - 1

  column = j * bn + jnp.arange(bn)
  is_small = op.grouped and op.group < unit
  count = unit // op.group if is_small else 1  # Scales of a piece.

  def groups(row):  # Past the end lie codes of x = 0.
    rows = row + jnp.arange(count)
    return jnp.minimum(rows, ref['scale'].shape[0] - 1)

  def wide(rows):  # [count, bn] -> [unit or 1, bn].
    if count == 1:
      return rows
    shape = (count, op.group, bn)
    return jnp.broadcast_to(rows[:, None], shape).reshape(unit, bn)

  def scales(row):
    codes = _gather(ref['scale'], groups(row), column)
    return wide(operands.decode_scale(codes, op.scale_format))

  def zeros(row):
    if op.zero_bits:
      return wide(_packed_zeros(ref['zero'], groups(row), column, op))
    return wide(operands.to_float(_gather(ref['zero'], groups(row), column)))

  def add(acc, x, fields, start):
    w = _values(fields, s, ref.get('table'))
    row = jax.lax.div(start, op.group) if op.grouped else 0
    if 'zero' in ref:
      w = w - zeros(row)
    if is_small:
      w = w * scales(row)
    y = jnp.dot(
      x,
      w.astype(x.dtype),
      precision=precision,
      preferred_element_type=jnp.float32,
    )
    return acc + (y * scales(row) if op.grouped and not is_small else y)

  def step(c, acc):
    load = lambda at: side(
      ref['words'].at[pl.ds(c * s.rows + at, unit), columns]
    )
    for p, fields in enumerate(storage.pieces(load, s, unit)):
      start = c * s.chunk + p * unit
      x = _load(ref['x'].at[rows, pl.ds(start, unit)], inside_m, 0)
      acc = add(acc, x, fields, start)
    return acc

  def tail_step(p, acc):
    whole = size // s.chunk * s.chunk
    codes = p * unit + jnp.arange(unit)
    inside = codes < size - whole
    load = lambda at: _gather(ref['words'], s.count(whole) + at, column)
    x = _tail_x(
      ref['x'].at[rows, pl.ds(whole + p * unit, unit)], inside_m, inside
    )
    fields = storage.fields_at(
      load, s, jnp.where(inside, codes, 0), size - whole
    )
    return add(acc, x, fields, whole + p * unit)

  whole, tail = divmod(size, s.chunk)
  acc = jnp.zeros((bm, bn), jnp.float32)
  first, stop = (
    jax.lax.div(whole * p, tiles.split_k) for p in (part, part + 1)
  )
  acc = jax.lax.fori_loop(first, stop, step, acc)
  if tail:
    pieces = jnp.where(
      part == last, jnp.int32(math.ceil(tail / unit)), jnp.int32(0)
    )
    acc = jax.lax.fori_loop(jnp.int32(0), pieces, tail_step, acc)
  if not op.grouped:
    acc = acc * scales(0)
  if 'tensor_scale' in ref:
    acc = acc * ref['tensor_scale'][0, 0]
  mask = None
  for inside, axis in ((inside_m, 0), (inside_n, 1)):
    if inside is not None:
      inside = jnp.broadcast_to(jnp.expand_dims(inside, 1 - axis), (bm, bn))
      mask = inside if mask is None else mask & inside
  triton.store(
    ref['out'].at[part, rows, columns], acc.astype(ref['out'].dtype), mask=mask
  )


def _load(ref, mask, axis: int):
  """Loads a block; where `mask` along `axis` is false, zeros."""
  if mask is None:
    return triton.load(ref)
  mask = jnp.broadcast_to(jnp.expand_dims(mask, 1 - axis), ref.shape)
  return triton.load(ref, mask=mask, other=0)


def _gather(ref, rows, columns):
  """ref[rows, columns] for vectors of both; outside, the nearest column."""
  columns = jnp.minimum(columns, ref.shape[1] - 1)
  shape = (rows.shape[0], columns.shape[0])
  rows = jnp.broadcast_to(rows[:, None], shape)
  return triton.load(ref.at[rows, jnp.broadcast_to(columns[None], shape)])


def _packed_zeros(ref, rows, columns, op: operands.Static):
  """Zero points of `columns` in rows of packed codes, float32 [rows, n]."""
  s = op.zero_storage
  chunk = jax.lax.div(columns, s.chunk)
  codes = columns - chunk * s.chunk
  fields, start, shift = None, 0, 0
  for width in s.widths:
    count = s.chunk * width // 8
    lane = jax.lax.div(codes, count)
    at = chunk * s.rows + start + codes - lane * count
    bits = _gather(ref, rows, at).astype(jnp.int32) >> (lane * width)[None]
    bits = (bits & (2**width - 1)) << shift
    fields = bits if fields is None else fields | bits
    start, shift = start + count, shift + width
  return fields.astype(jnp.float32)


def _tail_x(ref, inside_m, inside_k):
  mask = jnp.broadcast_to(inside_k[None], ref.shape)
  if inside_m is not None:
    mask = mask & inside_m[:, None]
  return triton.load(ref, mask=mask, other=0)


def _values(fields, s: storage.Storage, table_ref):
  """float32 values of fields; see `storage.values`."""
  fmt = s.format
  if isinstance(fmt, formats.Minifloat) and fmt.exponent <= 5:
    return _half(fields, fmt)
  gather = None
  if table_ref is not None:
    gather = lambda fields, _: triton.load(table_ref.at[fields])
  return storage.values(fields, s, gather)


def _half(fields, fmt: formats.Minifloat):
  """Minifloats through the fields of float16, subnormals by the hardware.

  Shift sign and magnitude in place, and multiply by the ratio of the biases.
  Xia et al., FP6-LLM, 2024 (arXiv:2401.14112).
  """
  top = fmt.bits - 1
  magnitude = fields & (2**top - 1)
  sign = (fields >> top) << 15
  bits = (sign | (magnitude << (10 - fmt.mantissa))).astype(jnp.int16)
  half = jax.lax.bitcast_convert_type(bits, jnp.float16)
  value = half.astype(jnp.float32) * 2.0 ** (15 - fmt.bias)
  value = storage.specials(value, magnitude, fmt)
  if fmt.specials == 'fnuz':
    value = jnp.where(fields == 2**top, jnp.nan, value)
  return value
