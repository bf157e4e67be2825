"""fake_quantize, and what its gradient is taken to be.

An estimator is a function (x, q, inside) -> y whose value is q, the quantized
x, and whose gradient with respect to x is the estimate; `inside` marks the
elements that did not saturate (for `straight_through` it is None). One with
parameters is a frozen value, and may say more: see `Estimator`.
"""

import dataclasses
import functools
import math
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np

from lowbit import formats
from lowbit.quantize import fused, qtensor
from lowbit.quantize import spec as spec_lib


class Estimator(Protocol):
  """What `fake_quantize` takes: a function, or a frozen value.

  A value may have a method `forward(spec) -> spec`: how the forward pass
  rounds, or ValueError for a spec that the estimator cannot serve. And
  `reads_offset = True`: it is then called with a fourth argument, x - q in
  steps between levels, float32; the format's levels must lie evenly.
  """

  def __call__(
    self, x: jax.Array, q: jax.Array, inside: jax.Array | None
  ) -> jax.Array:
    """Returns q, with a gradient with respect to x."""


@jax.custom_jvp
def straight_through(x, q, inside):
  """dy/dx = 1: Bengio et al., 2013 (arXiv:1308.3432)."""
  del x, inside
  return q


@straight_through.defjvp
def _straight_through_jvp(primals, tangents):
  return primals[1], tangents[0]


@jax.custom_jvp
def clipped(x, q, inside):
  """dy/dx = 1 where x did not saturate, and 0 where it did."""
  del x, inside
  return q


@clipped.defjvp
def _clipped_jvp(primals, tangents):
  _, q, inside = primals
  return q, jnp.where(inside, tangents[0], jnp.zeros_like(tangents[0]))


@dataclasses.dataclass(frozen=True)
class Stochastic:
  """Rounds stochastically, whatever the spec's nearest; needs a key.

  The value is then x on average, so that a straight-through gradient is the
  true one of the average. It is the same as '~stochastic' in the spec, as a
  value that takes part in a comparison of estimators. Bengio et al., 2013
  (arXiv:1308.3432).

  Attributes:
    backward: Gives the gradient: `straight_through` or `clipped`.
  """

  backward: Estimator = straight_through

  def __post_init__(self):
    if hasattr(self.backward, 'forward'):
      raise ValueError(
        f'`backward` of Stochastic is a gradient alone, got {self.backward}, '
        'which has a forward pass of its own. Use straight_through or clipped.'
      )

  def forward(self, spec: spec_lib.Spec) -> spec_lib.Spec:
    """`spec` with stochastic rounding."""
    if spec.rounding not in ('nearest', 'stochastic'):
      raise ValueError(
        f'`spec` {spec} rounds by {spec.rounding!r}, and the estimator at '
        'random. Leave out one of them.'
      )
    return dataclasses.replace(spec, rounding='stochastic')

  def __call__(self, x, q, inside):
    """See `Estimator`."""
    return self.backward(x, q, inside)


def soft_round(v: jax.Array, temperature) -> jax.Array:
  """A smooth staircase: `v` when it is hot, round(v) when it is cold.

  floor(v) + 1/2 + tanh(r / T) / (2 tanh(1 / 2T)), r = v - floor(v) - 1/2 and T
  the temperature: continuous, and exact on whole numbers. Gong et al.,
  Differentiable Soft Quantization, 2019 (arXiv:1908.05033), where
  alpha = 1 - tanh(1 / 2T).

  Args:
    v: Float array, in units of the step.
    temperature: Positive number, maybe traced.

  Returns:
    An array like `v`, differentiable.
  """
  k = jnp.asarray(1 / temperature, v.dtype)
  low = jax.lax.stop_gradient(jnp.floor(v))
  half = jnp.asarray(0.5, v.dtype)
  return low + half + half * jnp.tanh(k * (v - low - half)) / jnp.tanh(half * k)


@dataclasses.dataclass(frozen=True)
class Staircase:
  """Rounds to nearest; the gradient is that of `soft_round`, 0 outside.

  With u the distance to the nearest boundary between two levels, in steps, and
  T the temperature: dy/dx = sech^2(u / T) / (2 T tanh(1 / 2T)), whose mean over
  a step is 1. Hot, it is `clipped`; cold, only weights near a boundary move.

  Attributes:
    temperature: Positive.
  """

  temperature: float = 0.2
  reads_offset = True

  def __post_init__(self):
    if not 1e-3 <= self.temperature <= 1e3:
      raise ValueError(
        '`temperature` of Staircase must lie in 0.001..1000, got '
        f'{self.temperature}. A colder one never moves a weight, a hotter one '
        'is `clipped`.'
      )

  def forward(self, spec: spec_lib.Spec) -> spec_lib.Spec:
    """`spec`, if it rounds to nearest."""
    if spec.rounding not in ('nearest', 'away'):
      raise ValueError(
        f'`spec` {spec} rounds by {spec.rounding!r}; a staircase has its steps '
        "where rounding to nearest has them. Drop the '~', or use "
        'straight_through.'
      )
    return spec

  def slope(self, u: jax.Array) -> jax.Array:
    """dy/dx at the distance `u` from a boundary, in steps: float32."""
    k = 1 / self.temperature
    return k / 2 / math.tanh(k / 2) / jnp.cosh(k * u) ** 2

  def __call__(self, x, q, inside, offset):
    """See `Estimator`."""
    return _stairs(self, x, q, inside, offset)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _stairs(staircase, x, q, inside, offset):
  del staircase, x, inside, offset
  return q


@_stairs.defjvp
def _stairs_jvp(staircase, primals, tangents):
  _, q, inside, offset = primals
  slope = staircase.slope(0.5 - jnp.abs(offset))
  slope = jnp.where(inside, slope, jnp.zeros_like(slope))
  return q, tangents[0] * slope.astype(q.dtype)


@functools.cache
def even_step(fmt: formats.Format) -> float:
  """The distance between neighbouring levels, if all are alike.

  Raises:
    ValueError: If they are not, or if the nearest level is not the nearest.
  """
  if isinstance(fmt, formats.SideFormat) or fmt.bits > 16:
    steps = np.zeros(0)
  else:
    steps = np.diff(fmt.values())
  is_even = len(steps) > 0 and np.ptp(steps) <= 1e-6 * steps[0]
  if not is_even or getattr(fmt, 'thresholds', None) is not None:
    raise ValueError(
      f'`spec` with format {fmt.name} has levels that do not lie evenly, and '
      'the estimator counts in equal steps. Use integers, such as int4@g64, or '
      'an estimator that needs no step: straight_through, clipped.'
    )
  return float(steps[0])


def forward_spec(
  spec: spec_lib.Spec | str, estimator: Estimator
) -> spec_lib.Spec:
  """How the forward pass rounds under an estimator.

  Raises:
    ValueError: If the estimator cannot serve the spec.
  """
  spec = spec_lib.Spec.parse(spec)
  if getattr(estimator, 'reads_offset', False):
    even_step(spec.format)
  return estimator.forward(spec) if hasattr(estimator, 'forward') else spec


def fake_quantize(
  x: jax.Array,
  spec: spec_lib.Spec | str,
  axis: int | tuple[int, ...] = -1,
  key: jax.Array | None = None,
  estimator: Estimator = straight_through,
) -> jax.Array:
  """dequantize(quantize(x)), in the dtype of `x`, with a gradient.

  Args:
    x: Float array.
    spec: How, or its name.
    axis: The contraction axis or axes.
    key: PRNG key for stochastic rounding.
    estimator: `straight_through`, `clipped`, `Stochastic()`, `Staircase()`, or
      a function like them.

  Returns:
    An array like `x`.

  Raises:
    TypeError, ValueError: As `qtensor.quantize`; and ValueError for a spec that
      the estimator cannot serve.
  """
  qtensor.check_float(x)
  spec = forward_spec(spec, estimator)
  reads_offset = getattr(estimator, 'reads_offset', False)
  asks = estimator is not straight_through
  constant = jax.lax.stop_gradient(x)
  y, inside, offset = fused.round_trip(
    constant, spec, axis, key, asks, reads_offset
  )
  if not reads_offset:
    return estimator(x, y, inside)
  return estimator(x, y, inside, offset / even_step(spec.format))
