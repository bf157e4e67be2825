"""AQAS: smoothing scales that see the quantization of both operands.

Lee et al., 2023 (arXiv:2311.05161): s minimises |Q_W(W diag(s)) Q_A(X / s) -
W X|^2 over s_j = (max |X_j|)^a, a on a grid in [0, 1].
"""

import functools

import jax
import jax.numpy as jnp

from lowbit import quantize

STEPS = 20


@functools.partial(jax.jit, static_argnames=('spec', 'activation'))
def search_joint_scale(
  weights: tuple[jax.Array, ...],
  x: jax.Array,
  spec: quantize.Spec,
  activation: quantize.Spec | None,
) -> tuple[jax.Array, jax.Array]:
  """The scale that errs least on sampled inputs.

  Args:
    weights: Matrices [out, in] that share one input.
    x: Inputs, float32 [tokens, in].
    spec: How W diag(s) is quantized; its scales are fitted for every s.
    activation: How X / s is quantized; None leaves it, which is the search of
      AWQ by maxima.

  Returns:
    `(scale [in], errors [21])`; errors[0], a = 0, is that of no scaling.
  """
  amax = jnp.maximum(jnp.max(jnp.abs(x), axis=0), 1e-5)

  def scale_of(alpha):
    s = amax**alpha
    return s / jnp.sqrt(jnp.max(s) * jnp.min(s))

  def error(alpha):
    s = scale_of(alpha)
    smooth = x / s[None]
    if activation is not None:
      smooth = quantize.fake_quantize(smooth, activation)
    total = jnp.float32(0)
    for w in weights:
      q = quantize.fake_quantize(w * s[None], spec)
      total += jnp.sum((jnp.matmul(smooth, q.T) - jnp.matmul(x, w.T)) ** 2)
    return total

  alphas = jnp.arange(STEPS + 1, dtype=jnp.float32) / STEPS
  errors = jax.lax.map(error, alphas)
  return scale_of(alphas[jnp.argmin(errors)]), errors
