"""Permutations inside attention heads: K-sort.

Rows of the key projection are sorted by norm inside each head, so that blocks
along the head's dimension hold channels of one size; the queries follow, and
Q K^T stays as it was. Trukhanov and Soloveychik, Accurate Block Quantization in
LLMs with Outliers, 2024 (arXiv:2403.20137).
"""

import jax
import jax.numpy as jnp


def key_order(key_kernel: jax.Array, rotary: bool = False) -> jax.Array:
  """The order of each head's channels by the norm of their weights.

  Args:
    key_kernel: Float [in, heads, dim].
    rotary: Keep the pairs (i, i + dim/2) of RoPE together: pairs are sorted by
      their joint norm. The frequencies must then be permuted alike, by
      order[:, : dim/2].

  Returns:
    int32 [heads, dim], ascending norms.

  Raises:
    ValueError: If the kernel has no three axes.
  """
  if key_kernel.ndim != 3:
    raise ValueError(
      f'`key_kernel` must be [in, heads, dim], got shape {key_kernel.shape}. '
      'Reshape the [in, heads * dim] kernel of a Dense layer.'
    )
  power = jnp.sum(key_kernel.astype(jnp.float32) ** 2, axis=0)
  if not rotary:
    return jnp.argsort(power, axis=-1)
  half = power.shape[-1] // 2
  order = jnp.argsort(power[:, :half] + power[:, half:], axis=-1)
  return jnp.concatenate([order, order + half], axis=-1)


def permute_heads(kernel: jax.Array, order: jax.Array) -> jax.Array:
  """Reorders the channels of each head.

  Args:
    kernel: [in, heads, dim]; the heads of queries may be a multiple of those of
      `order`, as in grouped-query attention: each group follows its key head.
    order: int32 [key heads, dim].
  """
  groups = kernel.shape[1] // order.shape[0]
  wide = jnp.repeat(order, groups, axis=0)
  return jnp.take_along_axis(kernel, wide[None], axis=-1)
