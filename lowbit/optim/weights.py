"""Updates of weights that are narrow themselves, or bounded."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lowbit import formats

_FORMATS = ('bf16', 'fp16', 'e4m3', 'e5m2', 'e4m3ieee', 'e4m3fnuz', 'e5m2fnuz')
_BY_DTYPE = {formats.get(name).dtype: formats.get(name) for name in _FORMATS}


class StochasticWeightsState(NamedTuple):
  """The noise's key."""

  count: jax.Array  # int32 [], steps done.
  key: jax.Array


def apply_updates(params, updates):
  """`optax.apply_updates` for params and updates of any two float dtypes.

  Sums in float32 and casts once: needed for float8 parameters, which JAX
  promotes with nothing, and under strict dtype promotion.
  """

  def leaf(p, u):
    total = p.astype(jnp.float32) + u.astype(jnp.float32)
    return total.astype(p.dtype)

  return jax.tree.map(leaf, params, updates)


def round_stochastic(x: jax.Array, dtype, key: jax.Array) -> jax.Array:
  """float32 `x` rounded to a narrow float dtype, without bias.

  Args:
    x: float32, any shape; what lies beyond the largest value saturates.
    dtype: bfloat16, float16 or a float8.
    key: PRNG key.

  Raises:
    TypeError: For another dtype.
  """
  fmt = _BY_DTYPE.get(np.dtype(dtype))
  if fmt is None:
    known = ', '.join(d.name for d in _BY_DTYPE)
    raise TypeError(
      f'`dtype` must be one of {known}, got {np.dtype(dtype).name}. Wider '
      'weights need no stochastic rounding.'
    )
  noise = jax.random.uniform(key, x.shape)
  return fmt.round(x, 'stochastic', noise).astype(dtype)


def stochastic_weights(key: jax.Array | int) -> optax.GradientTransformation:
  """Last of a chain: narrow parameters are updated by stochastic rounding.

  An update below half a unit of the last place is lost by rounding to nearest,
  step after step; here it is kept on average. The updates that it returns are
  float32 and land on the rounded weights: apply them by `apply_updates`, or,
  for bfloat16 and float16 without strict promotion, `optax.apply_updates`.
  Parameters in float32 pass as they are.

  Args:
    key: PRNG key or a seed; mandatory.

  >>> tx = optax.chain(optax.adam(1e-4), lowbit.optim.stochastic_weights(0))
  """
  if key is None:
    raise ValueError(
      '`key` is needed: stochastic rounding has no default noise. Give '
      'jax.random.key(0), or a seed.'
    )
  key = jax.random.key(key) if isinstance(key, int) else key

  def init_fn(params):
    del params
    return StochasticWeightsState(jnp.zeros([], jnp.int32), key)

  def update_fn(updates, state, params=None):
    need(params, 'stochastic_weights')
    leaves, treedef = jax.tree.flatten(updates)
    at = jax.random.fold_in(state.key, state.count)
    keys = jax.random.split(at, max(len(leaves), 1))

    def leaf(u, p, k):
      if np.dtype(p.dtype).itemsize > 2:
        return u
      p32 = p.astype(jnp.float32)
      new = round_stochastic(p32 + u.astype(jnp.float32), p.dtype, k)
      return new.astype(jnp.float32) - p32

    params = treedef.flatten_up_to(params)
    new = [leaf(*row) for row in zip(leaves, params, keys)]
    count = optax.safe_increment(state.count)
    return treedef.unflatten(new), StochasticWeightsState(count, state.key)

  return optax.GradientTransformation(init_fn, update_fn)


def clip_weights(
  low: float = -1.0, high: float = 1.0
) -> optax.GradientTransformation:
  """Last of a chain: weights stay within [low, high], as latent binary ones do.

  Outside of it sign(w) has a zero straight-through gradient, and a weight would
  drift away for ever. Courbariaux et al., BinaryConnect, 2015
  (arXiv:1511.00363). The bounds are met to one rounding of the sum.
  """

  def update_fn(updates, state, params=None):
    need(params, 'clip_weights')

    def leaf(u, p):
      bounds = [jnp.asarray(b).astype(u.dtype) for b in (low, high)]
      p = p.astype(u.dtype)
      return jnp.clip(p + u, *bounds) - p

    return jax.tree.map(leaf, updates, params), state

  return optax.GradientTransformation(optax.init_empty_state, update_fn)


def need(params, name: str) -> None:
  """Raises ValueError without params."""
  if params is None:
    raise ValueError(
      f'`params` are needed by {name}. Call update(updates, state, params).'
    )
