"""Momentum and Lion with one stored moment."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from lowbit.optim import adam
from lowbit.optim import moments as moments_lib


class StoredTraceState(NamedTuple):
  """One stored moment for each parameter."""

  count: jax.Array  # int32 [].
  trace: optax.Updates


def trace(
  decay: float,
  nesterov: bool = False,
  moments: moments_lib.Moments = adam.EIGHT_BIT,
) -> optax.GradientTransformation:
  """`optax.trace` with a stored trace: t <- g + decay t."""

  mix = lambda g, t: g + decay * t
  return _one_moment(
    lambda g, t: (mix(g, t),),
    lambda g, old, new: mix(g, new[0]) if nesterov else new[0],
    moments,
  )


def scale_by_lion(
  b1: float = 0.9,
  b2: float = 0.99,
  moments: moments_lib.Moments = adam.EIGHT_BIT,
) -> optax.GradientTransformation:
  """`optax.scale_by_lion` with a stored moment: sign(b1 m + (1 - b1) g)."""

  return _one_moment(
    lambda g, m: (optax.tree.update_moment(g, m, b2, 1),),
    lambda g, old, new: jnp.sign((1.0 - b1) * g + b1 * old[0]),
    moments,
  )


def _one_moment(new, direction, moments) -> optax.GradientTransformation:
  def init_fn(params):
    zeros = moments_lib.init(moments, moments.first, params)
    return StoredTraceState(jnp.zeros([], jnp.int32), zeros)

  def update_fn(updates, state, params=None):
    del params
    count = optax.safe_increment(state.count)
    updates, (stored,) = moments_lib.advance(
      new,
      direction,
      (moments.first,),
      updates,
      (state.trace,),
      moments.key(count),
    )
    return updates, StoredTraceState(count, stored)

  return optax.GradientTransformation(init_fn, update_fn)


def momentum8bit(
  learning_rate: optax.ScalarOrSchedule,
  momentum: float = 0.9,
  nesterov: bool = False,
  moments: moments_lib.Moments = adam.EIGHT_BIT,
) -> optax.GradientTransformation:
  """SGD with a block-wise 8-bit momentum: 1 byte a parameter (2110.02861)."""
  return optax.chain(
    trace(momentum, nesterov, moments),
    optax.scale_by_learning_rate(learning_rate),
  )


def lion8bit(
  learning_rate: optax.ScalarOrSchedule,
  b1: float = 0.9,
  b2: float = 0.99,
  weight_decay: float = 1e-3,
  mask: adam.Mask = None,
  moments: moments_lib.Moments = adam.EIGHT_BIT,
) -> optax.GradientTransformation:
  """Lion (Chen et al., arXiv:2302.06675) with a block-wise 8-bit moment."""
  return optax.chain(
    scale_by_lion(b1, b2, moments),
    optax.add_decayed_weights(weight_decay, mask),
    optax.scale_by_learning_rate(learning_rate),
  )
