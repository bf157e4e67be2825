"""How far the largest values of a tensor stand out."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

LEVELS = (0.5, 0.99, 0.999, 1.0)  # Quantiles of |x|.


@dataclasses.dataclass(frozen=True)
class Outliers:
  """Of one tensor, for weights or for the inputs of a layer.

  Attributes:
    std: Root mean square: the tensor's own scale, without a mean taken off.
    absmax_over_std: A Gaussian of a million elements has about 5.
    kurtosis: E[x^4] / E[x^2]^2; 3 for a Gaussian.
    quantiles: |x| / std at `LEVELS`.
    top: (channel, its absmax over the median channel's), largest first.
  """

  std: float
  absmax_over_std: float
  kurtosis: float
  quantiles: tuple[float, ...]
  top: tuple[tuple[int, float], ...]


def outliers(x: jax.Array, axis: int = -1, count: int = 3) -> Outliers:
  """Outlier statistics of a tensor, in float32.

  Args:
    x: Float array of at least one element, finite.
    axis: Of the channels that `top` names: the inputs of a layer.
    count: How many channels `top` names at most.

  Returns:
    `Outliers`; of zeros, all are 0.

  Raises:
    ValueError: If x is empty, or holds NaN or Inf.
  """
  x = jnp.asarray(x).astype(jnp.float32)
  if not x.size or not bool(jnp.all(jnp.isfinite(x))):
    raise ValueError(
      f'`x` of shape {x.shape} must hold at least one number, and no NaN or '
      'Inf: their statistics would say nothing.'
    )
  std = float(jnp.sqrt(jnp.mean(x**2)))
  if not std:
    return Outliers(0.0, 0.0, 0.0, (0.0,) * len(LEVELS), ())
  unit = jnp.abs(x / std)
  quantiles = np.quantile(np.asarray(unit), LEVELS)
  moved = jnp.moveaxis(unit, axis, 0).reshape(x.shape[axis], -1)
  channels = np.asarray(jnp.max(moved, axis=1))
  order = np.argsort(-channels, kind='stable')[:count]
  middle = max(float(np.median(channels)), float(np.finfo(np.float32).tiny))
  return Outliers(
    std,
    float(quantiles[-1]),
    float(jnp.mean(unit**4)),
    tuple(quantiles.tolist()),
    tuple((int(i), float(channels[i]) / middle) for i in order),
  )
