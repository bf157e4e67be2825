"""grouped_matmul in plain XLA: a scan over tiles, each with one expert."""

import jax
import jax.numpy as jnp

from lowbit.kernels import operands
from lowbit.kernels.dequant_matmul import xla as dequant
from lowbit.kernels.grouped_matmul import layout

BLOCK = 32


def grouped_matmul(x, w, group_sizes) -> jax.Array:
  """As `reference.grouped_matmul`; one expert is decoded at a time."""
  tiled = layout.tile(x.shape[0], group_sizes, BLOCK)
  parts = tiled.spread(x).reshape(-1, BLOCK, x.shape[1])

  def step(carry, part):
    x, e = part
    op = operands.take_apart(jax.tree.map(lambda a: a[e], w))
    return carry, dequant.dequant_matmul(x, op, out_dtype=jnp.float32)

  _, y = jax.lax.scan(step, None, (parts, tiled.expert))
  return tiled.gather(y.reshape(tiled.rows, -1)).astype(x.dtype)
