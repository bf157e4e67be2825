"""Power-of-two factors of channels, under one scale a tensor.

The step of channel c is s 2^a_c, a_c = 0..K, with s 2^K the step of the largest
channel: the factor is a shift, and goes into the weights. Shen et al.,
Agile-Quant, 2023 (arXiv:2312.05693), after FQ-ViT (arXiv:2111.13824).
"""

import jax
import jax.numpy as jnp

from lowbit import formats, quantize


def power_factors(
  x: jax.Array, fmt: formats.Integer, largest: int = 3
) -> tuple[jax.Array, jax.Array]:
  """The factor of each channel that rounds it best.

  Args:
    x: float32 [tokens, channels].
    fmt: Signed integers.
    largest: K.

  Returns:
    `(s [], a int32 [channels])`; `round_with_factors` applies them.
  """
  step = jnp.max(jnp.abs(x)) / (fmt.max * 2**largest)
  step = jnp.where(step > 0, step, 1.0)

  def error(a):
    wide = step * jnp.float32(2**a)
    return jnp.sum((fmt.round(x / wide) * wide - x) ** 2, axis=0)

  errors = jnp.stack([error(a) for a in range(largest + 1)])
  return step, jnp.argmin(errors, axis=0).astype(jnp.int32)


def round_with_factors(
  x: jax.Array, fmt: formats.Integer, step: jax.Array, factors: jax.Array
) -> jax.Array:
  """x in steps of step 2^factor, saturated: float32, like `x`."""
  wide = step * quantize.scales.exp2(factors)
  return fmt.round(x / wide[None]) * wide[None]
