"""DAQ: scales and zero points tuned by the sign of a finite difference.

Luo et al., 2024 (arXiv:2410.12187): each group's scale and zero point take
steps of a fixed relative size, in the direction that lowers the output error,
and only if it does; steps shrink on one schedule and grow on another.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp

from lowbit import quantize

STEP = 1e-3


def refine(
  w: jax.Array,
  hessian: jax.Array,
  q: quantize.QTensor,
  iterations: int = 200,
) -> quantize.QTensor:
  """Lowers each group's output error d_g H_gg d_g^T; it never rises.

  Args:
    w: Float [out, in].
    hessian: float32 [in, in], the mean of x x^T.
    q: Quantized `w`, with a real zero point, groups that divide `in` (or
      channels), and float32 scales.
    iterations: Two trials each, of the zero point and of the scale.

  Returns:
    A `QTensor` with new codes, scales and zero points.

  Raises:
    ValueError: If `q` has no real zero point, or its groups do not divide.
  """
  group = q.spec.block if isinstance(q.spec.block, int) else w.shape[1]
  if q.zero is None or q.spec.integer_zero or w.shape[1] % group:
    raise ValueError(
      f'`q` must have a real zero point and groups that divide {w.shape[1]}, '
      f'such as nf4z@g128:density; got {q.spec}.'
    )
  scale, zero = _descend(w, hessian, q, group, iterations)
  fitted = dataclasses.replace(q, scale=scale, zero=zero)
  return quantize.quantize_with(w, fitted)


@functools.partial(jax.jit, static_argnums=(3, 4))
def _descend(w, hessian, q, group, iterations):
  index = jnp.arange(w.shape[1]).reshape(-1, group)
  local = hessian[index[:, :, None], index[:, None, :]]  # [groups, g, g].
  parts = w.reshape(w.shape[0], -1, group)
  fmt = q.spec.format

  def loss(scale, zero):
    s, z = scale[..., None], zero[..., None]
    d = (fmt.round(parts / s + z) - z) * s - parts
    return jnp.einsum('ogi,gij,ogj->og', d, local, d)

  def better(best, scale, zero):
    error = loss(scale, zero)
    wins = error < best[0]
    pick = lambda new, old: jnp.where(wins, new, old)
    return pick(error, best[0]), pick(scale, best[1]), pick(zero, best[2])

  def step(best, i):
    # Fine steps shrink, coarse ones grow, in turns of 100.
    k = (i % 100).astype(jnp.float32)
    fine, coarse = STEP / 5 * 0.97**k, 5 * STEP * 1.03**k
    size = jnp.where((i // 100) % 2 == 0, coarse, fine)
    for sign in (-1.0, 1.0):
      best = better(best, best[1], best[2] + sign * size)
    for sign in (-1.0, 1.0):
      best = better(best, best[1] * (1 + sign * size), best[2])
    return best, None

  start = (loss(q.scale, q.zero), q.scale, q.zero)
  (_, scale, zero), _ = jax.lax.scan(step, start, jnp.arange(iterations))
  return scale, zero
