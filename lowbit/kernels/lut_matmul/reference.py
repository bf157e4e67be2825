"""Lookups as plain gathers: what the kernels are held to."""

import jax
import jax.numpy as jnp

from lowbit.kernels.lut_matmul import layout


def lookups(table: jax.Array, words: jax.Array) -> jax.Array:
  """Weighted sums of looked-up entries: [M, segments, N].

  Args:
    table: float32 or int8 [M, tables, 8].
    words: uint8 [bits, tables / 2, N].

  Returns:
    float32, or int32 for int8 tables: sum_i 2^i sum over the 16 tables of a
    segment.
  """
  kind = jnp.float32 if table.dtype == jnp.float32 else jnp.int32
  index = layout.unpack_indices(words)
  total = jnp.zeros((), kind)
  for i in range(words.shape[0]):
    total = total + _plane(table.astype(kind), index[i]) * kind(2**i)
  return total


def _plane(table, index):
  """[M, segments, N] of one plane of indices [tables, N]."""
  m, n = table.shape[0], index.shape[1]
  shape = (m, *index.shape)
  found = jnp.take_along_axis(
    table, jnp.broadcast_to(index[None] & 7, shape), axis=2
  )
  found = jnp.where((index >> 3 == 1)[None], -found, found)
  return jnp.sum(found.reshape(m, -1, 16, n), axis=2, dtype=found.dtype)


def lut_matmul(table, scale, w: layout.LutWeight, total) -> jax.Array:
  """[M, N] float32 of tables, their scales or None, and the sums of x."""
  found = lookups(table, w.words).astype(jnp.float32)
  if scale is not None:
    found = found * scale[:, :, None]
  y = jnp.sum(found * w.scale[None], axis=1)
  return y - shift(w, total)


def shift(w: layout.LutWeight, total) -> jax.Array:
  """offset sum x: one small product, shared by all planes."""
  if w.offset.shape[0] == 1:
    return jnp.sum(total, axis=1, keepdims=True) * w.offset
  return jnp.matmul(total, w.offset, precision='highest')


def count_operations(k: int, n: int, bits: int) -> dict[str, int]:
  """Operations of one row: built sums, lookups and additions, products.

  Building counts the additions of 8 sums of four, by sharing: 4 + 8 a table.
  """
  groups = k // layout.GROUP
  return {
    'build_adds': 12 * groups,
    'lookups': bits * groups * n,
    'adds': bits * groups * n,
    'macs_of_dense': k * n,
  }
