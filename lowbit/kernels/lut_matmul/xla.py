"""lut_matmul in plain XLA: a scan of gathers over segments."""

import jax
import jax.numpy as jnp

from lowbit.kernels.lut_matmul import layout, reference


def lut_matmul(table, scale, w: layout.LutWeight, total) -> jax.Array:
  """As `reference.lut_matmul`, one segment at a time."""
  m, n = table.shape[0], w.shape[1]
  segments = table.shape[1] // 16
  table = table.reshape(m, segments, 16, layout.ENTRIES)
  words = w.words.reshape(w.bits, segments, 8, n)

  def step(y, s):
    found = reference.lookups(table[:, s], words[:, s])[:, 0]
    found = found.astype(jnp.float32) * row(w.scale, s)[None]
    return y + (found if scale is None else found * scale[:, s, None]), None

  row = lambda a, s: a[s if a.shape[0] > 1 else 0]
  y = jnp.zeros((m, n), jnp.float32)
  y, _ = jax.lax.scan(step, y, jnp.arange(segments))
  return y - reference.shift(w, total)
