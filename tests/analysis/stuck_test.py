"""Stuck bits, against a search over all codes."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np

from lowbit.analysis import stuck


def test_snap_is_the_best_of_all_codes():
  faults = stuck.draw((40, 30), 4, 0.3, jax.random.key(0))
  x = 5 * jax.random.normal(jax.random.key(1), (40, 30))
  y = np.asarray(stuck.snap(x, faults, 4))
  for i, j in itertools.product(range(0, 40, 7), range(0, 30, 5)):
    mask, value = int(faults.where[i, j]), int(faults.value[i, j])
    codes = {(c & ~mask & 15) | value for c in range(16)}
    values = [c - 16 if c > 7 else c for c in codes]
    best = min(abs(v - float(x[i, j])) for v in values)
    assert abs(y[i, j] - float(x[i, j])) <= best + 1e-6
    assert y[i, j] in values


def test_rates_and_the_sign_bit():
  faults = stuck.draw((2000, 8), 4, 0.25, jax.random.key(2))
  share = np.mean((np.asarray(faults.where)[..., None] >> np.arange(4)) & 1)
  assert abs(share - 0.25) < 0.01
  high = stuck.Stuck(jnp.full((1,), 8), jnp.full((1,), 8))
  assert stuck.apply_faults(jnp.asarray([3]), high, 4).item() == -5
  assert stuck.snap(jnp.asarray([3.0]), high, 4).item() == -1


def test_the_penalty_is_zero_on_the_grid_and_pulls_to_it():
  x = jnp.asarray([1.0, 2.4, -3.0])
  near = jnp.rint(x)
  assert float(stuck.penalty(near, near)) == 0
  grad = jax.grad(lambda x: stuck.penalty(x, jnp.rint(x)))(x)
  np.testing.assert_allclose(grad, 2 * (x - near) / 3, rtol=1e-6)
