"""FP8 with a learned clip and a learned number of mantissa bits.

All codes are finite, and the exponent bias is real, so that the largest code
is the clip c: b = 2^E - log2 c + log2(2 - 2^-M) - 1. Kuzmin et al., FP8
Quantization: The Power of the Exponent, 2022 (arXiv:2208.09225).
"""

import jax
import jax.numpy as jnp


def _round_ste(x: jax.Array) -> jax.Array:
  return x + jax.lax.stop_gradient(jnp.rint(x) - x)


def learned_float(
  x: jax.Array, clip: jax.Array, mantissa: jax.Array, bits: int = 8
) -> jax.Array:
  """Fake-quantizes to a float of `bits` bits whose split is learned.

  x^ = s round(x_c / s) with x_c = clip(x, -c, c) and s = 2^(p - M - b), p =
  max(floor(log2 |x_c| + b), 1). With b = 2^E + r this is log2 s = max(floor(
  log2 |x_c| + r), 1 - 2^E) - M - r, where the floor is held constant: gradients
  reach x inside the clip, c through r and the clip, and M through M, r and the
  subnormals. (The released code holds p constant instead. Then 2^E, which p
  absorbs, makes the error of normal numbers seem to grow with M.)

  Args:
    x: float32 of any shape.
    clip: float32, positive; of the rank of x (a channel's), or [].
    mantissa: float32 [], rounded straight-through and kept in [1, bits - 2].
    bits: Sign included.

  Returns:
    An array like `x`.
  """
  m = _round_ste(jnp.clip(mantissa, 1, bits - 2))
  levels = jnp.exp2(bits - 1 - m)
  rest = jnp.log2(2 - jnp.exp2(-m)) - jnp.log2(clip) - 1
  inside = jnp.minimum(jnp.maximum(x, -clip), clip)
  safe = jax.lax.stop_gradient(jnp.where(inside == 0, 1e-30, jnp.abs(inside)))
  power = jnp.floor(jnp.log2(safe) + jax.lax.stop_gradient(rest))
  step = jnp.exp2(jnp.maximum(power, 1 - levels) - m - rest)
  return _round_ste(inside / step) * step
