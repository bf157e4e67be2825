"""dequant_matmul in plain XLA: a scan over pieces of codes.

No more of the matrix exists at a time than a piece. For a few rows of x on a
CPU, a step adds a few rows of the matrix, times x, to y in one loop over the
columns, so that decoded values never leave registers; else a step is a product.
"""

import jax
import jax.numpy as jnp

from lowbit.kernels import operands, storage
from lowbit.kernels.dequant_matmul import pairs

FEW_ROWS = 2  # Of x; up to here values are decoded once a row.
TERMS = 32  # Codes that one fused step may add.
ROWS = 8  # Of one plane, in such a step.
PIECE = 128  # Codes of one product.
SHORT = 16  # Entries of a table.


def dequant_matmul(
  x: jax.Array, op: operands.Operands, *, out_dtype, precision=None
) -> jax.Array:
  """x [M, K] times the operands of a matrix [K, N], any K."""
  op = operands.unpacked_zero(op)
  s, size = op.storage, x.shape[1]
  whole = size // s.chunk * s.chunk
  x = x.astype(jnp.float32)
  y = jnp.zeros((x.shape[0], op.columns), jnp.float32)
  if whole:
    y = _chunks(x, op, precision)
  if whole < size:
    y = y + _tail(x[:, whole:], op.rows(whole, size), precision)
  if op.tensor_scale is not None:
    y = y * op.tensor_scale
  return y.astype(out_dtype)


def _chunks(x, op: operands.Operands, precision) -> jax.Array:
  """The product with all whole chunks."""
  product = lambda x, w: jnp.matmul(x, w, precision=precision)
  products = lambda x, op: _scan(x, op, PIECE, PIECE, product)
  if x.shape[0] > FEW_ROWS:
    return products(x, op)
  few = min(TERMS * _width(op) // op.storage.chunk, ROWS)
  sums = lambda x, op: _scan(x, op, few, 1, lambda x, w: x * w)
  if pairs.fits(op):
    sums = pairs.looked_up
  return jax.lax.platform_dependent(x, op, cpu=sums, default=products)


def _width(op: operands.Operands) -> int:
  """Consecutive codes at one shift of the bytes of the narrowest plane."""
  s = op.storage
  return s.rows if s.ternary else s.chunk * min(s.widths) // 8


def _scan(x, op: operands.Operands, most: int, rows: int, product) -> jax.Array:
  """x W, a few codes of each plane a step.

  Args:
    x: float32 [M, K].
    op: Operands, of which whole chunks are taken.
    most: Consecutive codes of one step; fewer, if a group has fewer.
    rows: Of them, those that are decoded together.
    product: ([M, rows], [rows, N]) -> [M, N].
  """
  s, width = op.storage, _width(op)
  unit = operands.divisor(op.common(width), most)
  rows, count = min(rows, unit), width // unit

  def step(y, i):
    chunk, block = i // count, i % count * unit
    sums = {}
    for r in range(0, unit, rows):
      at = chunk * s.rows + block + r
      load = lambda start, at=at: _slice(op.words, at + start, rows)
      for p, fields in enumerate(storage.pieces(load, s, rows, width)):
        start = chunk * s.chunk + p * width + block
        w = _shifted(storage.values(fields, s, _look_up), op, start)
        part = jax.lax.dynamic_slice_in_dim(x, start + r, rows, axis=1)
        sums[p] = sums.get(p, 0.0) + product(part, w)
    for p, total in sums.items():
      k = chunk * s.chunk + p * width + block
      y = y + total * operands.scale_at(op, k)
    return y, None

  zeros = jnp.zeros((x.shape[0], op.columns), jnp.float32)
  steps = jnp.arange(op.size // s.chunk * count, dtype=jnp.int32)
  return jax.lax.scan(step, zeros, steps)[0]


def _slice(a, start, size: int):
  return jax.lax.dynamic_slice_in_dim(a, start, size)


def _look_up(fields, table):
  """table[fields]; a CPU does selects in vectors, and short tables so."""
  if len(table) <= SHORT:
    return storage.select(fields, table)
  return jnp.take(jnp.asarray(table), fields, mode='clip')


def _shifted(w, op: operands.Operands, start) -> jax.Array:
  """Values of one group, less its zero points."""
  if op.zero is None:
    return w
  return w - operands.to_float(_slice(op.zero, operands.row(op, start), 1))


def _tail(x, op: operands.Operands, precision) -> jax.Array:
  """The product with a last, shorter chunk."""
  dense = lambda x, op: _dense(x, op, precision)
  if x.shape[0] > FEW_ROWS:
    return dense(x, op)
  return jax.lax.platform_dependent(x, op, cpu=_by_code, default=dense)


def _by_code(x, op: operands.Operands) -> jax.Array:
  """x W, one code of every column after the other."""
  load = lambda at: _slice(op.words, at[0], 1)

  def step(y, k):
    fields = storage.fields_at(load, op.storage, k[None], op.size)
    w = _shifted(storage.values(fields, op.storage, _look_up), op, k)
    return y + _slice(x.T, k, 1).T * w * operands.scale_at(op, k), None

  zeros = jnp.zeros((x.shape[0], op.columns), jnp.float32)
  codes = jnp.arange(op.size, dtype=jnp.int32)
  return jax.lax.scan(step, zeros, codes, unroll=min(8, op.size))[0]


def _dense(x, op: operands.Operands, precision) -> jax.Array:
  """x W with all of W at once."""
  fields = storage.unpack(op.words, op.storage, op.size)
  w = storage.values(fields, op.storage, _look_up)
  here = slice(op.offset, op.offset + op.size)
  wide = lambda a: jnp.repeat(a, op.group, axis=0)[here]
  if op.zero is not None:
    w = w - wide(operands.to_float(op.zero))
  scale = operands.decode_scale(op.scale, op.scale_format)
  return jnp.matmul(x, w * wide(scale), precision=precision)
