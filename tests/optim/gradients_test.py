"""Intervals and pruning of gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lowbit import optim
from lowbit.quantize import gradients

KEY = jax.random.key(0)


def laplace(n=2**18, seed=0):
  rng = np.random.default_rng(seed)
  return jnp.asarray(rng.laplace(size=n), jnp.float32)


def interval_errors(g, gamma, seed=0):
  """Mean |error| of all, and of the largest 0.1 %, in 4 bits."""
  q = gradients.quantize_interval(g, jnp.float32(gamma), 4, KEY)
  error = np.abs(np.asarray(q - g))
  order = np.argsort(-np.abs(np.asarray(g)))
  return error.mean(), error[order[: len(order) // 1000]].mean()


def test_the_interval_serves_the_large_gradients():
  g = laplace()
  rule = float(gradients.fit_interval(g, 4))
  assert rule == pytest.approx(0.80, abs=0.1)  # One sample.
  grid = np.linspace(0.05, 1, 20)
  total = grid[np.argmin([interval_errors(g, x)[0] for x in grid])]
  assert total < 0.4
  large = lambda gamma: interval_errors(g, gamma)[1]
  assert large(total) > 8 * large(rule)
  assert large(rule) < large(1.0)


def test_sign_steps_end_where_the_fit_is():
  g = laplace(2**14)
  want = float(gradients.fit_interval(g, 4))
  step = jax.jit(
    lambda x: jax.lax.fori_loop(
      0, 1000, lambda _, y: gradients.move_interval(y, g, 4), x
    )
  )
  # 2^14 elements leave one outside: gamma is between the two largest.
  for start in (1.0, 0.5):
    assert float(step(jnp.float32(start))) == pytest.approx(want, abs=0.05)


def test_levels_hold_zero_and_are_unbiased():
  g = laplace(512)
  quantize = lambda key: gradients.quantize_interval(g, jnp.float32(1), 3, key)
  draws = jax.vmap(quantize)(jax.random.split(KEY, 4000))
  step = float(jnp.max(jnp.abs(g))) / 3
  levels = np.unique(np.round(np.asarray(draws) / step, 4))
  np.testing.assert_allclose(levels, np.arange(-3, 4))
  error = np.abs(np.mean(draws, axis=0) - np.asarray(g))
  assert error.max() < 5 * step / 2 / np.sqrt(4000)


def test_a_gradient_of_zeros_stays_zero():
  zeros = jnp.zeros(64)
  q = gradients.quantize_interval(
    zeros, gradients.fit_interval(zeros, 4), 4, KEY
  )
  np.testing.assert_array_equal(q, 0)
  pruned = gradients.prune_groups(jnp.zeros((8, 8)), 4, KEY)
  np.testing.assert_array_equal(pruned, 0)


def rows(sigma, seed=0):
  rng = np.random.default_rng(seed)
  g = rng.normal(size=(128, 64)) * np.exp(sigma * rng.normal(size=(128, 1)))
  return jnp.asarray(g, jnp.float32)


def variance(quantize, g, draws=400):
  """E |Q(g) - g|^2 / |g|^2."""
  many = jax.vmap(lambda key: quantize(g, key))(jax.random.split(KEY, draws))
  error = jnp.sum((many - g[None]) ** 2, axis=(1, 2))
  return float(jnp.mean(error) / jnp.sum(g**2))


def test_variance_of_pruned_groups():
  psq = lambda g, key: gradients.quantize_groups(g, 1, key)
  agp = lambda bits: lambda g, key: gradients.prune_groups(g, bits, key)
  g = rows(1.5)
  assert variance(psq, g) > 10 * variance(agp(4), g)
  even = rows(0.0)
  assert variance(psq, even) == pytest.approx(4.53, rel=0.1)
  assert variance(agp(2), even) == pytest.approx(1.80, rel=0.1)
  assert variance(agp(8), even) > variance(psq, even)


def test_pruning_is_unbiased_and_costs_one_bit():
  g = rows(1.0)
  one = jax.vmap(lambda key: gradients.prune_groups(g, 4, key))
  many = np.asarray(one(jax.random.split(KEY, 2000)))
  error = np.abs(many.mean(0) - np.asarray(g))
  spread = many.std(0) / np.sqrt(2000)
  assert np.mean(error < 3 * spread + 1e-7) > 0.99
  kept = np.mean((many != 0).any(-1))
  assert kept == pytest.approx(1 / 4, rel=0.05)
  top = gradients.top_groups(g, 4, KEY)
  assert int(jnp.sum(jnp.any(top != 0, axis=1))) == 32


def test_probabilities_fill_the_budget():
  p = gradients.keep_probabilities(jnp.asarray([100.0, 1, 1, 1, 1]), 2.0)
  np.testing.assert_allclose(p, [1, 0.25, 0.25, 0.25, 0.25], rtol=1e-6)
  np.testing.assert_allclose(
    gradients.keep_probabilities(jnp.zeros(4), 1.0), 0.25
  )


def test_the_first_gradient_sets_the_interval():
  tx = optim.interval_gradients(0)
  g = {'w': laplace(2**14)}
  state = tx.init(g)
  _, state = tx.update(g, state)
  fit = float(gradients.fit_interval(g['w'], 4))
  assert float(state.gamma['w']) == pytest.approx(fit, abs=1.1e-3)
  before = float(state.gamma['w'])
  _, state = tx.update({'w': g['w'] * 0 + 1}, state)
  assert float(state.gamma['w']) == pytest.approx(before + 1e-3, abs=1e-6)
