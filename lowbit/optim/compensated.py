"""Collage: AdamW in bfloat16 alone, with the lost bits kept in a second one.

Yu et al., Collage: Light-Weight Low-Precision Strategy for LLM Training, 2024
(arXiv:2405.03637).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from lowbit.optim import expansion, moments


class CollageState(NamedTuple):
  """Trees like the parameters, in their dtype; () where not kept."""

  count: jax.Array  # int32 [], steps done.
  mu: optax.Updates
  nu: optax.Updates
  rest: optax.Updates  # Second component of the weights.
  nu_rest: optax.Updates  # Second component of `nu`.


def collage(
  learning_rate: optax.ScalarOrSchedule,
  b1: float = 0.9,
  b2: float = 0.999,
  eps: float = 1e-8,
  weight_decay: float = 1e-2,
  weights: bool = True,
  second_moment: bool = True,
) -> optax.GradientTransformation:
  """AdamW on bfloat16 parameters, without float32 copies.

  Weight decay joins the update before it meets the weight, so that it is not
  lost. Updates are float32, so that `optax.apply_updates` lands on the new
  leading component exactly; under strict dtype promotion use
  `lowbit.optim.apply_updates`. The model reads the leading component alone.

  Args:
    learning_rate: Step size or schedule.
    b1: Decay of the first moment.
    b2: Decay of the second moment; a pair of components with `second_moment`,
      as 0.999 is 1 in bfloat16.
    eps: Added to the root of the second moment.
    weight_decay: Decoupled; times the learning rate.
    weights: Keep a second component of each weight. Static.
    second_moment: Keep a second component of the second moment. Static.

  Returns:
    A transformation that needs `params`. Bytes a parameter, parameter and
    gradient included: 8 without components, 10 with one, 12 with both.

  Raises:
    TypeError: If a parameter is not bfloat16.
  """

  def init_fn(params):
    jax.tree.map(lambda p: expansion.rounder(p.dtype), params)
    zeros = lambda: optax.tree.zeros_like(params)
    return CollageState(
      jnp.zeros([], jnp.int32),
      zeros(),
      zeros(),
      zeros() if weights else (),
      zeros() if second_moment else (),
    )

  def update_fn(updates, state, params=None):
    if params is None:
      raise ValueError(
        '`params` are needed: Collage adds to them in two components. Call '
        'update(grads, state, params).'
      )
    count = optax.safe_increment(state.count)
    is_schedule = callable(learning_rate)
    rate = learning_rate(state.count) if is_schedule else learning_rate
    rate = jnp.asarray(rate, jnp.float32)
    numbers = (rate, b1, b2, eps, weight_decay, count)
    leaf = lambda *args: _leaf(numbers, *args)
    absent = jax.tree.map(lambda p: None, params)
    rest = state.rest if weights else absent
    nu_rest = state.nu_rest if second_moment else absent
    leaves, treedef = jax.tree.flatten(params)
    trees = (updates, state.mu, state.nu, rest, nu_rest)
    rows = zip(leaves, *(treedef.flatten_up_to(t) for t in trees))
    columns = zip(*(leaf(*row) for row in rows))
    new = [treedef.unflatten(c) for c in columns] or [params] * 5
    delta, mu, nu, rest, nu_rest = new
    return delta, CollageState(
      count,
      mu,
      nu,
      rest if weights else (),
      nu_rest if second_moment else (),
    )

  return optax.GradientTransformation(init_fn, update_fn)


def _leaf(numbers, p, g, mu, nu, rest, nu_rest):
  rate, b1, b2, eps, weight_decay, count = numbers
  dtype, r = p.dtype, expansion.rounder(p.dtype)
  g = g.astype(dtype)
  p32, g32, m32 = expansion.widen(p, g, mu)
  m32 = r(r(b1 * m32) + r((1 - b1) * g32))
  square = r((1 - b2) * r(g32 * g32))
  nu, nu_rest = _second_moment(nu, nu_rest, square.astype(dtype), b2)
  correct1, correct2 = (moments.correction(b, count) for b in (b1, b2))
  root = r(jnp.sqrt(nu.astype(jnp.float32)))
  denominator = r(r(root / jnp.sqrt(correct2)) + eps)
  step = r(r(m32 / correct1) / denominator)
  change = r(r(-rate * step) - r(rate * weight_decay * p32)).astype(dtype)
  if rest is None:
    new = r(p32 + change.astype(jnp.float32)).astype(dtype)
  else:
    new, rest = expansion.grow(p, rest, change)
  delta = new.astype(jnp.float32) - p32
  return delta, m32.astype(dtype), nu, rest, nu_rest


def _second_moment(nu, nu_rest, square, b2):
  """b2 nu + square, in one component or two."""
  r, dtype = expansion.rounder(nu.dtype), nu.dtype
  if nu_rest is None:
    kept = r(r(jnp.asarray(b2, jnp.float32)) * nu.astype(jnp.float32))
    return r(kept + square.astype(jnp.float32)).astype(dtype), None
  nu, nu_rest = expansion.scale(nu, nu_rest, expansion.split(b2, dtype))
  return expansion.grow(nu, nu_rest, square)


def collage_light(learning_rate, **options) -> optax.GradientTransformation:
  """`collage` with two components of the weights only."""
  return collage(learning_rate, second_moment=False, **options)


def collage_plus(learning_rate, **options) -> optax.GradientTransformation:
  """`collage` with two components of the weights and the second moment."""
  return collage(learning_rate, **options)


def effective_descent(intended, before, after) -> jax.Array:
  """Effective descent quality over |d|: <d, d'> / |d|^2, float32 [].

  d is the intended update and d' = after - before what became of it: 1 when
  nothing is lost, 0 when everything is. The paper logs this times |d|.

  Args:
    intended: Tree of updates.
    before: Tree of weights; with Collage, sums of the components in float32.
    after: The same after the step.
  """
  inner = lambda a, b: sum(
    jnp.sum(x.astype(jnp.float32) * y.astype(jnp.float32))
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b))
  )
  change = jax.tree.map(
    lambda a, b: a.astype(jnp.float32) - b.astype(jnp.float32), after, before
  )
  return inner(intended, change) / inner(intended, intended)


def lost_fraction(intended, before, after) -> jax.Array:
  """Fraction of the intended changes that left the weight as it was."""
  pairs = list(
    zip(
      jax.tree.leaves(intended), jax.tree.leaves(before), jax.tree.leaves(after)
    )
  )
  lost = sum(jnp.sum((d != 0) & (a == b)) for d, b, a in pairs)
  asked = sum(jnp.sum(d != 0) for d, _, _ in pairs)
  return lost.astype(jnp.float32) / jnp.maximum(asked, 1).astype(jnp.float32)
