"""What a solver knows of a layer's inputs: a pytree, one a layer."""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class Statistics(NamedTuple):
  """Statistics of inputs x [tokens, in]; leading axes are stacked layers."""

  count: jax.Array  # float32 [], tokens seen.
  absmax: jax.Array  # float32 [in], max |x|.
  mean: jax.Array  # float32 [in], mean x.
  mean_abs: jax.Array  # float32 [in], mean |x|.
  hessian: jax.Array  # float32 [in, in], mean x x^T.


def observe(x: jax.Array) -> Statistics:
  """Statistics of x [..., in]; all leading axes are tokens."""
  x = x.reshape(-1, x.shape[-1]).astype(jnp.float32)
  hessian = jnp.matmul(x.T, x, precision='highest') / x.shape[0]
  return Statistics(
    jnp.float32(x.shape[0]),
    jnp.max(jnp.abs(x), axis=0),
    jnp.mean(x, axis=0),
    jnp.mean(jnp.abs(x), axis=0),
    hessian,
  )


def merge(a: Statistics, b: Statistics) -> Statistics:
  """Statistics of both sets of tokens together."""
  count = a.count + b.count
  share = b.count / count

  def mean(u, v):
    weight = share.reshape(share.shape + (1,) * (u.ndim - share.ndim))
    return u + (v - u) * weight

  return Statistics(
    count,
    jnp.maximum(a.absmax, b.absmax),
    mean(a.mean, b.mean),
    mean(a.mean_abs, b.mean_abs),
    mean(a.hessian, b.hessian),
  )


def rotate(stats: Statistics, rotation) -> Statistics:
  """Statistics of x R: exact for mean and Hessian.

  The absmax and mean of |x R| are not known from these; they are bounded by,
  and estimated from, the rotated second moment (a Gaussian's mean |x|).
  """
  half = rotation(stats.hessian)
  hessian = rotation(half.T)
  power = jnp.sqrt(jnp.maximum(jnp.diagonal(hessian), 0.0))
  return Statistics(
    stats.count,
    power * jnp.sqrt(stats.count),
    rotation(stats.mean),
    power * jnp.sqrt(jnp.float32(2 / jnp.pi)),
    hessian,
  )
