"""Averages among clients of different bit widths: which elements to take.

Yoon et al., Bitwidth Heterogeneous Federated Learning with Progressive Weight
Dequantization (ProWD), 2022 (arXiv:2202.11453).
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp


def compatible(high: jax.Array, low: jax.Array) -> jax.Array:
  """The mask m in {0, 1} of the largest cosine between `high` and m * low.

  Found exactly, by one sort: with a = high low and b = low^2 the cosine is
  sum(m a) / sqrt(sum(m b)) but for a constant, and the best set is a prefix of
  the elements by falling a / b. (The paper descends on sigmoids.)

  Args:
    high: Change of the wide clients' weights, any shape.
    low: Change of one narrow client's weights, the same shape.

  Returns:
    float32 mask of that shape. Elements with low = 0 are 0; so is all where no
    element agrees in sign.

  Raises:
    ValueError: If the shapes differ.
  """
  if high.shape != low.shape:
    raise ValueError(
      f'`high` and `low` must have one shape, got {high.shape} and {low.shape}.'
    )
  h, w = (v.astype(jnp.float32).reshape(-1) for v in (high, low))
  moved = w != 0
  ratio = jnp.where(moved, h / jnp.where(moved, w, 1.0), -jnp.inf)
  order = jnp.argsort(-ratio)
  gain = jnp.cumsum((h * w)[order])
  size = jnp.cumsum((w * w)[order])
  cosine = gain * jax.lax.rsqrt(jnp.where(size > 0, size, 1.0))
  count = jnp.where(jnp.max(cosine) > 0, jnp.argmax(cosine) + 1, 0)
  rank = jnp.zeros_like(order).at[order].set(jnp.arange(order.size))
  mask = (rank < count) & moved
  return mask.astype(jnp.float32).reshape(high.shape)


def selective_average(
  high: jax.Array, lifted: Sequence[jax.Array], masks: Sequence[jax.Array]
) -> jax.Array:
  """The mean of wide clients' weights and of what fits of narrow clients'.

  Args:
    high: Weights [clients, ...] of the wide clients.
    lifted: Weights [...] of each narrow client, lifted to many bits.
    masks: Which of their elements to take; `high`'s mean stands elsewhere.

  Returns:
    Weights [...].
  """
  mean = jnp.mean(high, axis=0)
  taken = [m * w + (1 - m) * mean for m, w in zip(masks, lifted, strict=True)]
  total = jnp.sum(high, axis=0) + sum(taken, start=jnp.zeros_like(mean))
  return total / (high.shape[0] + len(taken))
