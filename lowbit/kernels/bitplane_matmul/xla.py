"""bitplane_matmul in plain XLA: AND, popcount and add, a word at a time."""

import jax
import jax.numpy as jnp

from lowbit.kernels.bitplane_matmul import planes


def bitplane_matmul(x: planes.Planes, w: planes.Planes) -> jax.Array:
  """As `reference.bitplane_matmul`."""
  m, n = x.words.shape[1], w.words.shape[2]
  count = x.words.shape[2]

  def step(total, k):
    a = jax.lax.dynamic_index_in_dim(x.words, k, 2, keepdims=False)
    b = jax.lax.dynamic_index_in_dim(w.words, k, 1, keepdims=False)
    return total + pairs(a[:, :, None], b[:, None], x.coding, w.coding), None

  total, _ = jax.lax.scan(step, jnp.zeros((m, n), jnp.int32), jnp.arange(count))
  return planes.finish(x, w, total)


def pairs(a, b, x_coding: planes.Coding, w_coding: planes.Coding):
  """sum_ij c_i d_j popcount(a_i & b_j) of words that broadcast, int32.

  Args:
    a: Sequence of uint32 [m, 1], one a plane of x.
    b: Sequence of uint32 [1, n], one a plane of w.
    x_coding: Of x.
    w_coding: Of w.
  """
  total = None
  for i, c in enumerate(x_coding.weights):
    for j, d in enumerate(w_coding.weights):
      ones = jax.lax.population_count(a[i] & b[j]).astype(jnp.int32)
      term = ones * (c * d) if c * d != 1 else ones
      total = term if total is None else total + term
  return total
