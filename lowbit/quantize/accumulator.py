"""A2Q: weights that cannot overflow a narrow accumulator.

Colbert et al., A2Q, 2023 (arXiv:2308.13504). With inputs of N bits and an
accumulator of P bits, the L1 norm of a channel's integers may be at most
(2^(P-1) - 1) 2^(signed - N); rounding toward zero keeps it there.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp

from lowbit.quantize import learned


def norm_cap(accumulator: int, inputs: int, signed: bool = False) -> float:
  """The largest L1 norm of integer weights that is safe, in any order."""
  return (2 ** (accumulator - 1) - 1) * 2.0 ** (int(signed) - inputs)


def width_bound(
  terms: int, inputs: int, weights: int, signed: bool = False
) -> int:
  """Bits of an accumulator that holds any dot product of these types.

  P >= a + log2(1 + 2^-a) + 1, a = log2 K + N + M - 1 - signed.
  """
  a = math.log2(terms) + inputs + weights - 1 - int(signed)
  return math.ceil(a + math.log2(1 + 2.0**-a) + 1)


def _toward_zero_ste(x: jax.Array) -> jax.Array:
  return x + jax.lax.stop_gradient(jnp.trunc(x) - x)


@dataclasses.dataclass(frozen=True)
class A2q:
  """Weights g v / |v|_1 in integers, with |integers|_1 below the cap.

  Learned for each channel, in log2: the norm t and the step d; g = 2^min(t, T),
  T = log2 cap + d. The cap uses the paper's slightly loose 2^N for unsigned
  inputs. Gradients are straight-through, and pass the cap to d.

  Attributes:
    bits: Of the weights.
    accumulator: P.
    inputs: N, bits of the layer's input.
    signed: Whether inputs are signed.
  """

  bits: int
  accumulator: int
  inputs: int
  signed: bool = False

  def __post_init__(self):
    cap = norm_cap(self.accumulator, self.inputs, self.signed)
    if not 2 <= self.bits <= 8 or cap < 1:
      raise ValueError(
        f'`bits` must lie in 2..8, got {self.bits}, and the accumulator hold '
        f'one weight: at {self.accumulator} bits and inputs of {self.inputs}, '
        f'the norm is capped at {cap:.3g}. Use a wider accumulator.'
      )

  def init(self, x, axis=-1) -> learned.Params:
    """{'log_norm', 'log_step'}: one a channel, from |x|_1 and max |x|."""
    axes = learned.kept_axes(x, axis, 'channel')
    magnitude = jnp.abs(x.astype(jnp.float32))
    total = jnp.sum(magnitude, axis=axes, keepdims=True)
    top = jnp.max(magnitude, axis=axes, keepdims=True)
    safe = lambda a: jnp.where(a > 0, a, 1.0)
    step = safe(top) / (2 ** (self.bits - 1) - 1)
    return {'log_norm': jnp.log2(safe(total)), 'log_step': jnp.log2(step)}

  def integers(self, x, params, axis=-1) -> tuple[jax.Array, jax.Array]:
    """(whole numbers as float32, like `x`; step of each channel)."""
    axes = learned.kept_axes(x, axis, 'channel')
    x = x.astype(jnp.float32)
    total = jnp.sum(jnp.abs(x), axis=axes, keepdims=True)
    log_step = params['log_step']
    cap = math.log2(norm_cap(self.accumulator, self.inputs, self.signed))
    norm = jnp.exp2(jnp.minimum(params['log_norm'], log_step + cap))
    step = jnp.exp2(log_step)
    v = x / jnp.where(total > 0, total, 1.0) * (norm / step)
    high = 2 ** (self.bits - 1) - 1
    return learned.clip_inside(_toward_zero_ste(v), -high - 1, high), step

  def penalty(self, params) -> jax.Array:
    """sum max(t - T, 0): what training adds to its loss, times 1e-3."""
    cap = math.log2(norm_cap(self.accumulator, self.inputs, self.signed))
    over = params['log_norm'] - params['log_step'] - cap
    return jnp.sum(jnp.maximum(over, 0.0))

  def __call__(self, x, params, axis=-1):
    """The quantized `x`."""
    whole, step = self.integers(x, params, axis)
    return (whole * step).astype(x.dtype)
