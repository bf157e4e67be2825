"""Scales that are not taken from the tensor itself: static, and delayed.

Both give a tensor one scale, from magnitudes that were seen before; what lies
above saturates.
"""

import dataclasses

import jax
import jax.numpy as jnp

from lowbit.quantize import estimators, qtensor, scales
from lowbit.quantize import spec as spec_lib


def _checked(spec) -> spec_lib.Spec:
  spec = spec_lib.Spec.parse(spec)
  if spec.block != 'tensor' or spec.zero_point or spec.scale_format is not None:
    raise ValueError(
      'Scales that are held are one float32 a tensor, without zero point; got '
      f'{spec}. Write for example {spec.format.name}@tensor.'
    )
  return spec


def with_absmax(
  x: jax.Array, spec: spec_lib.Spec, absmax: jax.Array, key=None
) -> jax.Array:
  """Fake-quantizes `x` as if its largest magnitude were `absmax`.

  Gradients are 1 inside of the range and 0 outside.

  Args:
    x: Float array.
    spec: One scale a tensor.
    absmax: float32 [], positive; constant under differentiation.
    key: PRNG key for stochastic rounding.
  """
  absmax = jax.lax.stop_gradient(absmax).astype(jnp.float32)
  absmax = jnp.where(absmax > 0, absmax, 1.0)
  scale = scales.divide(absmax, spec.format.scale_target)
  shape = (1,) * x.ndim
  like = qtensor.QTensor(x, scale.reshape(shape), None, spec, _axes(x))
  q = qtensor.quantize_with(jax.lax.stop_gradient(x), like, key)
  inside = jnp.abs(x.astype(jnp.float32)) <= absmax
  return estimators.clipped(x, qtensor.dequantize(q, x.dtype), inside)


def _axes(x) -> tuple[int, ...]:
  return tuple(range(-x.ndim, 0))


@dataclasses.dataclass(frozen=True)
class Static:
  """A scale fixed by calibration; a rule takes it like a learned quantizer."""

  spec: spec_lib.Spec | str

  def __post_init__(self):
    object.__setattr__(self, 'spec', _checked(self.spec))
    if self.spec.rounding == 'stochastic':
      raise ValueError(
        f'`spec` {self.spec} of Static rounds stochastically, and no key '
        "reaches it. Drop '~stochastic', or use Delayed or a plain spec."
      )

  def init(self, x, axis=-1) -> dict[str, jax.Array]:
    """{'absmax': float32 []}, the largest magnitude of `x`."""
    del axis
    return {'absmax': jnp.max(jnp.abs(x.astype(jnp.float32)))}

  def __call__(self, x, params, axis=-1):
    """The quantized `x`; no gradient reaches the scale."""
    del axis
    return with_absmax(x, self.spec, params['absmax'])


@dataclasses.dataclass(frozen=True)
class Delayed:
  """A scale from the largest magnitudes of the last few steps.

  The first step, without a history, uses its own. Micikevicius et al., FP8
  Formats for Deep Learning, 2022 (arXiv:2209.05433) train so.

  Attributes:
    spec: One scale a tensor.
    history: How many steps are remembered.
  """

  spec: spec_lib.Spec | str
  history: int = 16

  def __post_init__(self):
    object.__setattr__(self, 'spec', _checked(self.spec))
    if self.history < 1:
      raise ValueError(
        f'`history` must be positive, got {self.history}. One step is the '
        'shortest memory.'
      )

  def start(self) -> jax.Array:
    """An empty history: float32 [history]."""
    return jnp.zeros(self.history, jnp.float32)

  def __call__(self, x, past, key=None) -> tuple[jax.Array, jax.Array]:
    """Returns the quantized `x`, and the history with this step in it."""
    now = jnp.max(jnp.abs(jax.lax.stop_gradient(x).astype(jnp.float32)))
    known = jnp.max(past)
    y = with_absmax(x, self.spec, jnp.where(known > 0, known, now), key)
    return y, jnp.roll(past, 1).at[0].set(now)
