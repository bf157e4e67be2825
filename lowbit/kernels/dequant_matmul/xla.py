"""dequant_matmul in plain XLA: a scan of products over chunks of codes.

No more than one chunk of the matrix exists at a time.
"""

import jax
import jax.numpy as jnp

from lowbit.kernels import operands, storage


def dequant_matmul(
  x: jax.Array, op: operands.Operands, *, out_dtype, precision=None
) -> jax.Array:
  """x [M, K] times the operands of a matrix [K, N], any K."""
  op = operands.unpacked_zero(op)
  s, size = op.storage, x.shape[1]
  whole = size // s.chunk * s.chunk
  y = jnp.zeros((x.shape[0], op.columns), jnp.float32)
  if whole:
    y = _chunks(x[:, :whole], op.rows(0, whole), precision)
  if whole < size:
    y = y + _dense(x[:, whole:], op.rows(whole, size), precision)
  if op.tensor_scale is not None:
    y = y * op.tensor_scale
  return y.astype(out_dtype)


def _chunks(x, op: operands.Operands, precision) -> jax.Array:
  s = op.storage
  count = op.size // s.chunk
  x = x.reshape(x.shape[0], count, s.chunk)
  words = op.words.reshape(count, s.rows, op.columns)

  def step(y, c):
    fields = storage.unpack(words[c], s)
    w = _scaled(fields, op, c * s.chunk)
    return y + jnp.matmul(_float(x[:, c]), w, precision=precision), None

  zeros = jnp.zeros((x.shape[0], op.columns), jnp.float32)
  return jax.lax.scan(step, zeros, jnp.arange(count))[0]


def _dense(x, op: operands.Operands, precision) -> jax.Array:
  """The product with all of a last, shorter chunk."""
  fields = storage.unpack(op.words, op.storage, op.size)
  return jnp.matmul(_float(x), _scaled(fields, op, 0), precision=precision)


def _float(x):
  return x.astype(jnp.float32)


def _scaled(fields, op: operands.Operands, start) -> jax.Array:
  """The matrix of fields [n, N] from code `start` of K on, float32."""
  n = fields.shape[0]
  w = storage.values(fields, op.storage)
  if op.zero is not None:
    w = w - operands.to_float(_wide(op.zero, op, start, n))
  scale = _wide(op.scale, op, start, n)
  return w * operands.decode_scale(scale, op.scale_format)


def _wide(side, op: operands.Operands, start, n: int) -> jax.Array:
  """Rows of `side` for codes start..start + n: [n, N], or one row [1, N]."""
  if not op.grouped:
    return side
  if op.group % n == 0:
    return jax.lax.dynamic_slice_in_dim(side, start // op.group, 1)
  if n % op.group == 0:
    rows = n // op.group
    part = jax.lax.dynamic_slice_in_dim(side, start // op.group, rows)
    return jnp.repeat(part, op.group, axis=0)
  return side[(start + jnp.arange(n)) // op.group]
