"""Shapes of distributions, as penalties that make tensors easy to quantize."""

from collections.abc import Iterable

import jax
import jax.numpy as jnp

UNIFORM = 1.8  # Kurtosis of a uniform distribution; a normal one has 3.


def _standard(x: jax.Array) -> jax.Array:
  x = x.astype(jnp.float32).reshape(-1)
  x = x - jnp.mean(x)
  variance = jnp.mean(x**2)
  return x * jax.lax.rsqrt(jnp.where(variance > 0, variance, 1.0))


def kurtosis(x: jax.Array) -> jax.Array:
  """E((x - mean)^4) / std^4 over all elements: float32 []; 0 if constant."""
  return jnp.mean(_standard(x) ** 4)


def skewness(x: jax.Array) -> jax.Array:
  """E((x - mean)^3) / std^3 over all elements: float32 []."""
  return jnp.mean(_standard(x) ** 3)


def weight_distribution(
  weights: Iterable[jax.Array],
  kurtosis_weight: float = 0.015,
  skewness_weight: float = 1.0,
) -> jax.Array:
  """Weight distribution regularization: pulls layers toward uniform.

  The mean over layers of a (kurtosis - 1.8)^2 + b skewness^2. Xu et al.,
  EQ-Net, 2023 (arXiv:2308.07650), whose first layer is left out.

  Args:
    weights: One array a layer.
    kurtosis_weight: a.
    skewness_weight: b.

  Returns:
    float32 [].

  Raises:
    ValueError: If there are no weights.
  """
  each = [
    kurtosis_weight * (kurtosis(w) - UNIFORM) ** 2
    + skewness_weight * skewness(w) ** 2
    for w in weights
  ]
  if not each:
    raise ValueError('`weights` is empty; pass at least one layer.')
  return sum(each[1:], start=each[0]) / len(each)


def gaussian_entropy(x: jax.Array, axis: int = -1) -> jax.Array:
  """mean log(1 + var(x, axis)): twice a normal's entropy, but for constants.

  1 + keeps it finite where quantization makes a vector constant. Shen et al.,
  EdgeQAT, 2024 (arXiv:2402.10787).

  Args:
    x: Float array.
    axis: Of one vector.

  Returns:
    float32 [].
  """
  return jnp.mean(jnp.log1p(jnp.var(x.astype(jnp.float32), axis=axis)))
