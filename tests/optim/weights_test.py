"""Narrow weights, bounds, and weights that oscillate."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lowbit import optim


@pytest.mark.parametrize(
  'dtype', [jnp.bfloat16, jnp.float16, jnp.float8_e4m3fn, jnp.float8_e5m2]
)
def test_small_updates_survive_on_average(dtype):
  p = jnp.full((4096,), 1.0, dtype)
  unit = float(jnp.finfo(dtype).eps)
  tx = optax.chain(optax.scale(1.0), optim.stochastic_weights(0))
  u = jnp.full((4096,), unit / 8, jnp.float32)  # Nearest: lost.
  assert (optim.apply_updates(p, u) == p).all()
  step = lambda c, _: (_apply(tx, u, c), None)
  (p, _), _ = jax.jit(lambda c: jax.lax.scan(step, c, None, 16))(
    (p, tx.init(p))
  )
  mean = float(jnp.mean(p.astype(jnp.float32)))
  error = unit * np.sqrt(16 / 8 / 4096)
  assert abs(mean - (1 + 2 * unit)) < 5 * error


def _apply(tx, u, carry):
  p, state = carry
  new, state = tx.update(u, state, p)
  return optim.apply_updates(p, new), state


def test_rounding_lands_on_neighbours():
  x = jnp.asarray(np.random.default_rng(0).normal(size=4096), jnp.float32)
  q = optim.round_stochastic(x, jnp.bfloat16, jax.random.key(0))
  near = x.astype(jnp.bfloat16)
  step = np.abs(np.asarray(near, np.float64)) * 2.0**-7 + 1e-30
  assert (np.abs(np.asarray(q, np.float64) - np.asarray(x)) <= step).all()
  assert 0.05 < np.mean(np.asarray(q != near)) < 0.5


def test_stochastic_rounding_asks_for_a_key_and_a_narrow_dtype():
  with pytest.raises(ValueError, match=r'`key` is needed'):
    optim.stochastic_weights(None)
  for make in (optim.interval_gradients, optim.prune_gradients):
    with pytest.raises(ValueError, match='`key` is needed'):
      make(None)
  with pytest.raises(TypeError, match='bfloat16, float16'):
    optim.round_stochastic(jnp.zeros(3), jnp.float32, jax.random.key(0))
  tx = optim.stochastic_weights(0)
  state = tx.init(jnp.zeros(3))
  with pytest.raises(ValueError, match='`params` are needed'):
    tx.update(jnp.zeros(3), state)


def test_float32_weights_pass():
  tx = optim.stochastic_weights(0)
  u = {'w': jnp.full((3,), 1e-9)}
  new, _ = tx.update(u, tx.init(u), {'w': jnp.ones(3)})
  np.testing.assert_array_equal(new['w'], u['w'])


def test_clipped_weights_stay_between_the_bounds():
  rng = np.random.default_rng(0)
  p = jnp.asarray(rng.uniform(-1, 1, 1000), jnp.float32)
  u = jnp.asarray(rng.normal(size=1000), jnp.float32)
  tx = optim.clip_weights()
  new, _ = tx.update(u, tx.init(p), p)
  got = np.asarray(p + new)
  assert np.abs(got).max() <= 1 + 2e-7
  np.testing.assert_allclose(got, np.clip(p + u, -1, 1), atol=2e-7)


GRID = optim.SpecGrid('int3@tensor')


def test_grids_name_levels():
  w = jnp.asarray([-3.0, -0.4, 0.0, 0.6, 1.4, 3.0])
  np.testing.assert_allclose(GRID.position(w), w, rtol=1e-6)
  np.testing.assert_allclose(GRID.weight(GRID.position(w), w), w, rtol=1e-6)
  stats = optim.StatsGrid(2)
  s = 2 * float(jnp.mean(jnp.abs(w)))
  levels = np.unique(np.asarray(stats.quantized(w)) / s)
  np.testing.assert_allclose(levels, [-0.75, -0.25, 0.25, 0.75], rtol=1e-6)
  gradient = jax.grad(lambda w: jnp.sum(stats.quantized(w)))(w)
  np.testing.assert_array_equal(gradient, 1)
  with pytest.raises(ValueError, match='symmetric integers'):
    optim.SpecGrid('e2m1@g32')


def drive(tx, p, moves):
  """Applies the moves of one weight; returns weights and the last state."""
  state, seen = tx.init(p), []
  for move in moves:
    u, state = tx.update(jnp.zeros_like(p).at[0].set(move), state, p)
    p = optax.apply_updates(p, u)
    seen.append(float(p[0]))
  return seen, state


# The last weight holds the scale: int3 of absmax 3 has step 1.
START = jnp.asarray([0.4, 0.2, 3.0])


def test_oscillations_are_changes_against_the_last_one():
  tx = optim.track_oscillation(GRID, decay=0.5)
  moves = [0.2, -0.2, 0.2, 0.1, 1.0]  # Levels 1, 0, 1, 1, 2.
  _, state = drive(tx, START, moves)
  want = 0.0
  for flip in (0, 1, 1, 0, 0):
    want = 0.5 * flip + 0.5 * want
  np.testing.assert_allclose(state.frequency[0], want)
  np.testing.assert_array_equal(state.frequency[1:], 0)
  np.testing.assert_array_equal(state.level, [2, 0, 3])


def test_a_weight_that_oscillates_too_often_is_frozen_at_its_mean():
  tx = optim.track_oscillation(GRID, decay=0.3, threshold=0.4)
  seen, state = drive(tx, START, [0.2, -0.2] * 6)
  assert bool(state.frozen[0])
  assert not bool(state.frozen[1:].any())
  assert seen[-1] == seen[-2]
  assert seen[-1] in (0.0, 1.0)


def test_damping_pulls_to_levels():
  tx = optim.damp_oscillation(GRID, 0.5)
  g, _ = tx.update(jnp.zeros(3), tx.init(START), START)
  np.testing.assert_allclose(g, [0.4, 0.2, 0.0], atol=1e-6)
  # It is the gradient of the squared distance.
  distance = lambda w: 0.5 * jnp.sum((w - jnp.rint(w)) ** 2)
  want = jax.grad(distance)(START)
  np.testing.assert_allclose(g, want, atol=1e-6)


def test_confident_weights_keep_their_value_under_momentum_and_decay():
  tx = optax.chain(
    optim.trace(0.9), optax.scale(-0.01), optim.freeze_confident(GRID, 0.15)
  )
  p = START
  state = tx.init(p)
  for _ in range(3):
    u, state = tx.update(jnp.ones(3), state, p)
    p = optax.apply_updates(p, u)
  np.testing.assert_array_equal(p[1:], START[1:])
  assert float(p[0]) < 0.4  # Position 0.4 is near the boundary 0.5.
