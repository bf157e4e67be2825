"""Gradients quantized on their way into an optimizer."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from lowbit.quantize import gradients


class IntervalState(NamedTuple):
  """One interval a parameter, and the noise's key."""

  count: jax.Array  # int32 [], steps done.
  key: jax.Array
  gamma: optax.Updates  # float32 [] for each parameter.


class NoiseState(NamedTuple):
  """The noise's key."""

  count: jax.Array  # int32 [], steps done.
  key: jax.Array


def interval_gradients(
  key: jax.Array | int, bits: int = 4, alpha: float = 1e-3
) -> optax.GradientTransformation:
  """Stochastic rounding in an interval that keeps the large gradients right.

  The first gradient sets each parameter's interval, and every later one moves
  it by 0.001; see `lowbit.quantize.gradients.fit_interval`. Each interval moves
  after it was used, by the gradient of this step.

  Args:
    key: PRNG key or a seed.
    bits: 2 to 8. Static.
    alpha: Fraction of gradients that count as large.
  """
  key = _key(key, 'interval_gradients')

  def init_fn(params):
    gamma = jax.tree.map(lambda _: jnp.float32(1), params)
    return IntervalState(jnp.zeros([], jnp.int32), key, gamma)

  def update_fn(updates, state, params=None):
    del params
    is_first = state.count == 0

    def leaf(g, gamma, at):
      x = g.astype(jnp.float32)
      fit = lambda: gradients.fit_interval(x, bits, alpha)
      gamma = jax.lax.cond(is_first, fit, lambda: gamma)
      q = gradients.quantize_interval(x, gamma, bits, at).astype(g.dtype)
      return q, gradients.move_interval(gamma, x, bits, alpha)

    pairs, treedef = _each(leaf, state, updates, state.gamma)
    q, gamma = ([p[i] for p in pairs] for i in range(2))
    count = optax.safe_increment(state.count)
    state = IntervalState(count, state.key, treedef.unflatten(gamma))
    return treedef.unflatten(q), state

  return optax.GradientTransformation(init_fn, update_fn)


def prune_gradients(
  key: jax.Array | int, bits: int = 4
) -> optax.GradientTransformation:
  """Activated gradient pruning of matrices, one group a row; unbiased.

  About 1 / bits of the rows get `bits` bits, the others none
  (arXiv:2408.14267). Leading axes are folded into the rows; vectors and scalars
  pass.
  """
  key = _key(key, 'prune_gradients')

  def init_fn(params):
    del params
    return NoiseState(jnp.zeros([], jnp.int32), key)

  def update_fn(updates, state, params=None):
    del params

    def leaf(g, at):
      if g.ndim < 2:
        return g
      rows = g.reshape(-1, g.shape[-1]).astype(jnp.float32)
      q = gradients.prune_groups(rows, bits, at)
      return q.reshape(g.shape).astype(g.dtype)

    new, treedef = _each(leaf, state, updates)
    count = optax.safe_increment(state.count)
    return treedef.unflatten(new), NoiseState(count, state.key)

  return optax.GradientTransformation(init_fn, update_fn)


def _key(key, name: str) -> jax.Array:
  if key is None:
    raise ValueError(
      f'`key` is needed by {name}: stochastic rounding has no default noise. '
      'Give jax.random.key(0), or a seed.'
    )
  return jax.random.key(key) if isinstance(key, int) else key


def _each(leaf, state, updates, *trees):
  leaves, treedef = jax.tree.flatten(updates)
  at = jax.random.fold_in(state.key, state.count)
  keys = jax.random.split(at, max(len(leaves), 1))
  others = [treedef.flatten_up_to(t) for t in trees]
  return [leaf(*row) for row in zip(leaves, *others, keys)], treedef
