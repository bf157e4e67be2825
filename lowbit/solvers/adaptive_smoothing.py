"""Adaptive smoothing: only channels that leave a range are scaled.

Zhang et al., QQQ, 2024 (arXiv:2406.09904), after the range search of outlier
suppression: for a threshold t, s_j = max(1, max x_j / t, min x_j / -t), and t
is what errs least on sampled inputs. The released code scores the function of
the whole block; here it is that of the linears that share the input.
"""

import functools

import jax
import jax.numpy as jnp

from lowbit import quantize


@functools.partial(
  jax.jit, static_argnames=('spec', 'activation', 'steps', 'smallest')
)
def search_range(
  weights: tuple[jax.Array, ...],
  x: jax.Array,
  spec: quantize.Spec,
  activation: quantize.Spec,
  steps: int = 100,
  smallest: float = 0.02,
) -> tuple[jax.Array, jax.Array]:
  """The scale of the threshold that errs least.

  Args:
    weights: Matrices [out, in] that share one input.
    x: Inputs, float32 [tokens, in].
    spec: How W diag(s) is quantized.
    activation: How X / s is quantized.
    steps: How many thresholds are tried.
    smallest: The smallest, as a fraction of max |x|.

  Returns:
    `(scale [in], errors [steps])`: x / scale and W diag(scale) are quantized;
    channels inside of the range have scale 1 exactly. errors[0] is that of no
    smoothing.
  """
  top = jnp.max(jnp.abs(x))
  low, high = jnp.min(x, axis=0), jnp.max(x, axis=0)

  def scale_of(t):
    return jnp.maximum(jnp.maximum(high / t, -low / t), 1.0)

  def error(t):
    s = scale_of(t)
    smooth = quantize.fake_quantize(x / s[None], activation)
    total = jnp.float32(0)
    for w in weights:
      q = quantize.fake_quantize(w * s[None], spec)
      total += jnp.sum((jnp.matmul(smooth, q.T) - jnp.matmul(x, w.T)) ** 2)
    return total

  thresholds = top * jnp.linspace(1.0, smallest, steps, dtype=jnp.float32)
  errors = jax.lax.map(error, thresholds)
  return scale_of(thresholds[jnp.argmin(errors)]), errors
