"""AWQ: input scales, and clips, that protect the channels that matter.

Lin et al., AWQ, 2023 (arXiv:2306.00978). The output error that the search
lowers is that of the linears that share the input, tr(D H D^T) with D the
error of the weights; the released code takes the whole block's output.
"""

import functools

import jax
import jax.numpy as jnp

from lowbit import quantize
from lowbit.solvers import statistics

STEPS = 20
CLIP_STEPS = 10


def output_error(d: jax.Array, hessian: jax.Array) -> jax.Array:
  """Mean squared output error tr(d H d^T), d [out, in]."""
  return jnp.sum(jnp.matmul(d, hessian, precision='highest') * d)


@functools.partial(jax.jit, static_argnames='spec')
def search_scale(
  weights: tuple[jax.Array, ...],
  stats: statistics.Statistics,
  spec: quantize.Spec,
) -> tuple[jax.Array, jax.Array]:
  """The scale s = mean_abs^a / sqrt(max * min), a on a grid, that errs least.

  Args:
    weights: Matrices [out, in] that share one input.
    stats: Statistics of that input.
    spec: How W diag(s) is quantized.

  Returns:
    `(scale [in], errors [20])`; errors[0], a = 0, is that of no scaling.
  """

  def scale_of(alpha):
    s = jnp.maximum(stats.mean_abs**alpha, 1e-4)
    return s / jnp.sqrt(jnp.max(s) * jnp.min(s))

  def error(alpha):
    s = scale_of(alpha)
    total = jnp.float32(0)
    for w in weights:
      q = quantize.dequantize(quantize.quantize(w * s[None], spec))
      total += output_error(q / s[None] - w, stats.hessian)
    return total

  alphas = jnp.arange(STEPS, dtype=jnp.float32) / STEPS
  errors = jax.lax.map(error, alphas)
  return scale_of(alphas[jnp.argmin(errors)]), errors


@functools.partial(jax.jit, static_argnames='spec')
def search_clip(
  w: jax.Array, hessian: jax.Array, spec: quantize.Spec
) -> jax.Array:
  """Clamps each group of `w` [out, in] to the range that errs least.

  Ratios 1, 0.95, ..., 0.55 of the group's absmax; the error of a group is that
  of its part of the dot product, d_g H_gg d_g^T. Needs groups that divide `in`
  (or one scale a row).

  Returns:
    The clamped matrix, to be quantized as it is.
  """
  out, width = w.shape
  group = spec.block if isinstance(spec.block, int) else width
  if width % group:
    raise ValueError(
      f'AWQ clips whole groups: in={width} must be a multiple of {group}.'
    )
  parts = w.reshape(out, -1, group)
  index = jnp.arange(width).reshape(-1, group)
  local = hessian[index[:, :, None], index[:, None, :]]  # [groups, g, g].
  absmax = jnp.max(jnp.abs(parts), axis=-1, keepdims=True)

  def step(best, i):
    least, kept = best
    ratio = 1 - i.astype(jnp.float32) / (2 * CLIP_STEPS)
    clamped = jnp.clip(parts, -absmax * ratio, absmax * ratio)
    q = quantize.quantize(clamped.reshape(w.shape), spec)
    d = quantize.dequantize(q).reshape(parts.shape) - parts
    error = jnp.einsum('ogi,gij,ogj->og', d, local, d)[..., None]
    better = error < least
    return (
      jnp.where(better, error, least),
      jnp.where(better, clamped, kept),
    ), None

  start = (jnp.full(absmax.shape, jnp.inf), parts)
  (_, kept), _ = jax.lax.scan(step, start, jnp.arange(CLIP_STEPS))
  return kept.reshape(w.shape)


def awq(
  w: jax.Array,
  stats: statistics.Statistics,
  spec: quantize.Spec | str,
  clip: bool = False,
) -> tuple[quantize.QTensor, jax.Array]:
  """Quantizes one matrix behind its best input scale.

  Args:
    w: Float [out, in].
    stats: Statistics of the layer's input.
    spec: How.
    clip: Search the clip of each group as well.

  Returns:
    `(q, scale)`: w is about dequantize(q) / scale, scale [in].
  """
  spec = quantize.Spec.parse(spec)
  quantize.check_float(w, 'w')
  w = w.astype(jnp.float32)
  scale, _ = search_scale((w,), stats, spec)
  scaled = w * scale[None]
  if clip:
    hessian = stats.hessian / (scale[:, None] * scale[None])
    scaled = search_clip(scaled, hessian, spec)
  return quantize.quantize(scaled, spec), scale
