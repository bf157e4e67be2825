"""Gradient diversity: what a chain counts is what the definition says."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lowbit import optim
from lowbit.quantize import adaptive_fixed

RNG = np.random.default_rng(0)
PARAMS = {'a': {'kernel': jnp.ones((4, 3))}, 'b': jnp.ones(5)}


def steps(tx, state, rows):
  for row in rows:
    updates, state = tx.update(row, state, PARAMS)
  return updates, state


def rows(count):
  draw = lambda p: jnp.asarray(RNG.normal(size=p.shape), jnp.float32)
  return [jax.tree.map(draw, PARAMS) for _ in range(count)]


def test_it_is_the_diversity_of_adapt_and_changes_no_update():
  tx = optax.chain(optim.track_diversity(), optax.sgd(1.0))
  window = rows(7)
  updates, state = steps(tx, tx.init(PARAMS), window)
  np.testing.assert_array_equal(updates['b'], -window[-1]['b'])
  got = optim.diversity(state)
  for pick in (lambda t: t['a']['kernel'], lambda t: t['b']):
    each = [np.asarray(pick(row)).ravel() for row in window]
    want = adaptive_fixed.diversity(each)
    np.testing.assert_allclose(pick(got), want, rtol=1e-5)


def test_orthogonal_opposite_and_absent_gradients():
  tx = optim.track_diversity()
  unit = np.eye(5, dtype=np.float32)
  at = lambda b: {'a': {'kernel': jnp.zeros((4, 3))}, 'b': jnp.asarray(b)}
  scaled = [at(k * unit[k - 1]) for k in range(1, 5)]
  got = optim.diversity(steps(tx, tx.init(PARAMS), scaled)[1])
  np.testing.assert_allclose(got['b'], 2.0, rtol=1e-6)
  assert got['a']['kernel'] == 0  # There were no gradients.
  both = [at(unit[0]), at(-3 * unit[0])]
  got = optim.diversity(steps(tx, tx.init(PARAMS), both)[1])
  assert math.isinf(got['b'])


def test_windows_end_one_by_one():
  tx = optax.chain(optim.track_diversity(), optax.trace(0.9))
  first, second = rows(4), rows(3)
  _, state = steps(tx, tx.init(PARAMS), first)
  done = {'a': {'kernel': jnp.bool_(True)}, 'b': jnp.bool_(False)}
  cut = optim.forget(state, done)
  assert jax.tree.structure(cut) == jax.tree.structure(state)
  np.testing.assert_array_equal(cut[1].trace['b'], state[1].trace['b'])
  got = optim.diversity(steps(tx, cut, second)[1])
  fresh = optim.diversity(steps(tx, tx.init(PARAMS), second)[1])
  whole = optim.diversity(steps(tx, tx.init(PARAMS), first + second)[1])
  kernel = lambda t: float(t['a']['kernel'])
  np.testing.assert_allclose(kernel(got), kernel(fresh), rtol=1e-6)
  np.testing.assert_allclose(float(got['b']), float(whole['b']), rtol=1e-6)
  assert kernel(fresh) != kernel(whole)
