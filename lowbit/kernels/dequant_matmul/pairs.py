"""Products of two codes looked up together: decoding few rows on a CPU.

A table of 16 values costs 15 selects a code in vector registers. Two codes of
neighbouring rows make an index of 8 bits into the 256 sums that their products
with x can be: one look-up for two products, and no decoding. A table serves all
columns, and lies in the nearest cache. After T-MAC (arXiv:2407.00088), with
exact tables.
"""

import jax
import jax.numpy as jnp

from lowbit.kernels import operands

VALUES = 16  # Of a code.
ROWS = 8  # Of one plane, in a step.
COLUMNS = 256  # Fewer would not repay the tables.


def fits(op: operands.Operands) -> bool:
  """Whether codes are tables of 4 bits, two a byte, without zero points."""
  s = op.storage
  return (
    s.packed
    and s.widths == (4,)
    and s.table is not None
    and op.zero is None
    and op.columns >= COLUMNS
    and _rows(op) % 2 == 0
  )


def _rows(op: operands.Operands) -> int:
  """Consecutive codes of a step, of one group."""
  half = op.storage.chunk // 2
  return operands.divisor(op.common(half), ROWS)


def looked_up(x: jax.Array, op: operands.Operands) -> jax.Array:
  """x W, float32 [M, K] times whole chunks of codes for which `fits` holds."""
  rows, half = _rows(op), op.storage.chunk // 2
  count = half // rows

  def starts(i):
    """The step's first byte, and first code in the low and high halves."""
    chunk = jax.lax.div(i, jnp.int32(count))
    block = jax.lax.rem(i, jnp.int32(count)) * rows
    code = chunk * op.storage.chunk + block
    return chunk * half + block, (code, code + half)

  def tables(i):
    return [_tables(x, k, rows, op.storage.table) for k in starts(i)[1]]

  def step(carry, i):
    y, now = carry
    byte, codes = starts(i)
    indices = _indices(op.words, byte, rows)
    for k, index, table in zip(codes, indices, now):
      y = y + _sum(table, index) * operands.scale_at(op, k)
    # Carried, or XLA would multiply again for each column.
    return (y, tables(i + 1)), None

  zeros = jnp.zeros((x.shape[0], op.columns), jnp.float32)
  steps = jnp.arange(op.size // op.storage.chunk * count, dtype=jnp.int32)
  return jax.lax.scan(step, (zeros, tables(jnp.int32(0))), steps)[0][0]


def _tables(x, start, rows: int, values) -> jax.Array:
  """float32 [M, rows / 2, 16, 16]: x[k] v[last] + x[k + 1] v[last but one].

  Not flat: XLA would then find the four indices of each element by divisions.
  """
  m, n = x.shape[0], len(values)
  x = jax.lax.dynamic_slice_in_dim(x, start, rows, axis=1)
  x, values = x.reshape(m, -1, 2, 1, 1), jnp.asarray(values)
  return x[:, :, 1] * values.reshape(1, 1, n, 1) + x[:, :, 0] * values.reshape(
    1, 1, 1, n
  )


def _indices(words, start, rows: int):
  """For the low and the high half of the bytes, uint8 [1, N] a pair of rows."""
  row = lambda r: jax.lax.dynamic_slice_in_dim(words, start + r, 1)
  pairs = [(row(r), row(r + 1)) for r in range(0, rows, 2)]
  low = [(a & 15) | (b << 4) for a, b in pairs]
  high = [(a >> 4) | (b & 0xF0) for a, b in pairs]
  return low, high


def _sum(tables, indices) -> jax.Array:
  """The sum over pairs of rows of what is looked up, [M, N]."""
  flat, total = tables.reshape(-1), 0.0
  m, pairs = tables.shape[:2]
  for j, index in enumerate(indices):
    at = index.astype(jnp.int32) + VALUES**2 * j
    if m > 1:
      starts = jnp.arange(m, dtype=jnp.int32) * (VALUES**2 * pairs)
      at = at + starts[:, None]
    total = total + jnp.take(flat, at, mode='clip')
  return total
