"""AFPQ inside GPTQ: two scales a group, fitted on compensated columns."""

import jax
import jax.numpy as jnp
import numpy as np

import lowbit as lb

KEYS = jax.random.split(jax.random.key(0), 3)
MIX = jax.random.normal(KEYS[0], (64, 64)) / 8
X = jax.random.normal(KEYS[1], (512, 64)) @ (MIX + jnp.eye(64))
HESSIAN = X.T @ X / 512
NORMAL = jax.random.normal(KEYS[2], (48, 64))
W = jnp.where(NORMAL > 0, 3 * NORMAL**2, NORMAL)  # Skewed.


def error(q):
  return float(jnp.sum((X @ (W - lb.dequantize(q)).T) ** 2))


def test_two_scales_help_and_so_does_gptq():
  two = lb.solvers.gptq(W, HESSIAN, 'afpq_e2m1@g32')
  fresh = lb.solvers.gptq(W, HESSIAN, 'afpq_e2m1@g32', dynamic_groups=True)
  one = lb.solvers.gptq(W, HESSIAN, 'e2m1@g32')
  nearest = lb.solvers.nearest(W, 'afpq_e2m1@g32')
  assert error(two) < 0.8 * error(nearest)
  assert error(two) < error(one)
  assert error(fresh) < 0.8 * error(nearest)
  assert fresh.side.shape == fresh.scale.shape == (48, 2)
  # The first group sees no correction: its scales are those of the weights.
  np.testing.assert_array_equal(fresh.side[:, 0], nearest.side[:, 0])
  assert bool((fresh.side[:, 1] != nearest.side[:, 1]).all())


def test_without_correlation_it_is_nearest():
  q = lb.solvers.gptq(W, jnp.eye(64), 'afpq_nf4@g32:bf16', damping=0.0)
  want = lb.solvers.nearest(W, 'afpq_nf4@g32:bf16')
  np.testing.assert_array_equal(q.codes, want.codes)
  np.testing.assert_array_equal(lb.dequantize(q), lb.dequantize(want))
