"""The meaning: every row times the decoded matrix of its expert."""

import jax
import jax.numpy as jnp

from lowbit import quantize


def expert_of(rows: int, group_sizes: jax.Array) -> jax.Array:
  """Expert of each row, int32 [rows]; E behind the last group."""
  ends = jnp.cumsum(group_sizes)
  at = jnp.arange(rows, dtype=ends.dtype)
  return jnp.searchsorted(ends, at, side='right').astype(jnp.int32)


def grouped_matmul(x, w, group_sizes) -> jax.Array:
  """x [T, K] times w [E, K, N] by groups of rows: [T, N] in the dtype of x."""
  q = quantize.unpack(w) if isinstance(w, quantize.PackedQTensor) else w
  dense = quantize.dequantize(q)
  expert = expert_of(x.shape[0], group_sizes)

  def add(y, e):
    mine = (expert == e)[:, None]
    part = jnp.where(mine, x.astype(jnp.float32), 0.0) @ dense[e]
    return y + part, None

  y = jnp.zeros((x.shape[0], dense.shape[2]), jnp.float32)
  y, _ = jax.lax.scan(add, y, jnp.arange(dense.shape[0]))
  return y.astype(x.dtype)
