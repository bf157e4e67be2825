"""The gate on task gradients: by disorder, window by window, scales alone."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lowbit import optim

PARAMS = {
  'params': {'kernel': jnp.ones((2, 2))},
  'quantizers': {'step': jnp.ones(3), 'clip': jnp.ones(())},
}
FLIPPING = np.asarray([1.0, -1, 1, -1, 1, -1, 1, -1])
STEADY = np.ones(8)
RARE = np.asarray([1.0, 1, 1, 1, -1, -1, -1, -1])


def task(i):
  step = jnp.asarray([FLIPPING[i], STEADY[i], RARE[i]], jnp.float32)
  return {
    'params': {'kernel': jnp.full((2, 2), 1.0)},
    'quantizers': {'step': step, 'clip': jnp.float32(-2.0)},
  }


SMOOTH = jax.tree.map(lambda p: jnp.full_like(p, 0.25), PARAMS)


def run(tx, count, state=None):
  """Updates of each step and the last state, jitted."""
  update = jax.jit(lambda g, s, t: tx.update(g, s, PARAMS, task=t))
  state, all_updates = tx.init(PARAMS) if state is None else state, []
  for i in range(count):
    updates, state = update(SMOOTH, state, task(i))
    all_updates.append(updates)
  return all_updates, state


def test_only_steady_scales_lose_the_task_and_only_after_a_window():
  tx = optim.freeze_ordered(4, 0.3)
  first = run(tx, 4)[1].disorder['quantizers/step']
  np.testing.assert_array_equal(first, [0.75, 0.0, 0.0])
  updates, state = run(tx, 8)
  for i, u in enumerate(updates):
    own = task(i)
    np.testing.assert_array_equal(u['params']['kernel'], 1.25)
    let_in = np.asarray([True, False, False]) | (i < 4)
    want = 0.25 + np.where(let_in, own['quantizers']['step'], 0)
    np.testing.assert_array_equal(u['quantizers']['step'], want)
    want = 0.25 - 2.0 * (i < 4)
    np.testing.assert_array_equal(u['quantizers']['clip'], want)
  # In the second, the first element changed 4 times, the last once.
  disorder = state.disorder['quantizers/step']
  np.testing.assert_array_equal(disorder, [1.0, 0.0, 0.25])
  assert set(state.disorder) == {'quantizers/step', 'quantizers/clip'}


def test_what_was_frozen_comes_back():
  tx = optim.freeze_ordered(2, 0.5)
  steady, flipping = task(0), task(1)
  state = tx.init(PARAMS)
  step = lambda t, s: tx.update(SMOOTH, s, PARAMS, task=t)
  for _ in range(2):
    _, state = step(steady, state)
  u, state = step(steady, state)
  assert u['quantizers']['step'][0] == 0.25
  _, state = step(flipping, state)
  u, state = step(flipping, state)
  assert u['quantizers']['step'][0] == -0.75


def test_the_threshold_zero_never_freezes_and_it_stands_in_a_chain():
  tx = optax.chain(optim.freeze_ordered(2, 0.0), optax.sgd(1.0))
  updates, _ = run(tx, 8)
  for i, u in enumerate(updates):
    want = -0.25 - np.asarray(task(i)['quantizers']['step'])
    np.testing.assert_array_equal(u['quantizers']['step'], want)


def test_a_pattern_and_bad_arguments():
  tx = optim.freeze_ordered(2, 0.5, '.*/step')
  assert set(tx.init(PARAMS).disorder) == {'quantizers/step'}
  with pytest.raises(ValueError, match='quantizers/clip'):
    optim.freeze_ordered(2, 0.5, 'scales/.*').init(PARAMS)
  for window, threshold in ((0, 0.2), (5, 1.5)):
    with pytest.raises(ValueError, match='`window`'):
      optim.freeze_ordered(window, threshold)
  with pytest.raises(ValueError, match='task=task'):
    tx.update(SMOOTH, tx.init(PARAMS), PARAMS)
