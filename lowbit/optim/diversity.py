"""How much the gradients of the last steps agree, layer by layer."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax


class Directions(NamedTuple):
  """What a window of steps has summed; trees like the parameters."""

  direction: optax.Updates  # float32, sum of gradients of norm 1.
  directions: optax.Updates  # float32 [], how many there were.


def track_diversity() -> optax.GradientTransformation:
  """First of a chain: sums gradients, each of norm 1, and passes them on.

  `diversity` reads the state, and `forget` begins a new window. Gradients that
  are zero do not count. AdaPT's gradient diversity: Kummer et al., 2021
  (arXiv:2107.13490).
  """

  def init_fn(params):
    zeros = lambda p: jnp.zeros(p.shape, jnp.float32)
    none = lambda p: jnp.zeros([], jnp.float32)
    return Directions(jax.tree.map(zeros, params), jax.tree.map(none, params))

  def update_fn(updates, state, params=None):
    del params
    norm = lambda g: jnp.sqrt(jnp.sum(g.astype(jnp.float32) ** 2))

    def add(total, g):
      scale = jnp.where(norm(g) > 0, norm(g), 1.0)
      return total + g.astype(jnp.float32) / scale

    count = lambda n, g: n + (norm(g) > 0).astype(jnp.float32)
    return updates, Directions(
      jax.tree.map(add, state.direction, updates),
      jax.tree.map(count, state.directions, updates),
    )

  return optax.GradientTransformation(init_fn, update_fn)


def diversity(state: optax.OptState) -> optax.Updates:
  """(steps) / (norm of the sum) of a window's unit gradients, leaf by leaf.

  1 where all point one way, sqrt(n) where n are orthogonal, infinite where they
  cancel, 0 for a window without gradients.

  Args:
    state: Of `track_diversity`, or of a chain that holds one.

  Returns:
    A tree like the parameters, float32 [].
  """
  each = lambda n, total: jnp.where(
    n > 0, n / jnp.sqrt(jnp.sum(total**2)), jnp.float32(0)
  )
  directions = optax.tree.get(state, 'directions')
  return jax.tree.map(each, directions, optax.tree.get(state, 'direction'))


def forget(state: optax.OptState, done: optax.Updates) -> optax.OptState:
  """The state with empty windows where `done`, a tree of bools, is true."""
  clear = lambda x, flag: jnp.where(flag, jnp.zeros_like(x), x)
  parts = {
    name: jax.tree.map(clear, optax.tree.get(state, name), done)
    for name in Directions._fields
  }
  return optax.tree.set(state, **parts)
