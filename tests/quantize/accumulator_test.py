"""A2Q: bounds of the card, the guarantee, gradients, bad input."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lowbit.quantize import accumulator

W = jax.random.normal(jax.random.key(0), (64, 96))


def test_bounds_and_caps():
  widths = [accumulator.width_bound(k, 8, 8) for k in (64, 128, 256, 512, 1024)]
  assert widths == [23, 24, 25, 26, 27]
  assert accumulator.width_bound(784, 1, 8) == 19
  caps = [accumulator.norm_cap(p, 8) for p in (8, 12, 16, 20)]
  np.testing.assert_allclose(caps, [0.496, 7.996, 127.996, 2047.996], atol=5e-4)
  assert accumulator.norm_cap(16, 8, signed=True) == 2 * caps[2]


@pytest.mark.parametrize('width', [12, 14, 16, 20])
def test_the_norm_stays_below_the_cap_and_sparsity_falls(width):
  q = accumulator.A2q(6, width, 8)
  whole, step = q.integers(W, q.init(W))
  norms = np.abs(np.asarray(whole)).sum(axis=1)
  assert norms.max() <= accumulator.norm_cap(width, 8)
  np.testing.assert_array_equal(whole, np.rint(whole))
  y = q(W, q.init(W))
  np.testing.assert_allclose(y, whole * step, rtol=1e-6)


def test_a_wide_accumulator_changes_nothing_but_the_rounding():
  q = accumulator.A2q(8, 32, 8)
  y = q(W, q.init(W))
  step = jnp.exp2(q.init(W)['log_step'])
  assert bool(jnp.all(jnp.abs(y) <= jnp.abs(W) * 1.0001))
  assert bool(jnp.all(jnp.abs(W) - jnp.abs(y) < step * 1.001))


def test_gradients_reach_weights_and_both_parameters():
  q = accumulator.A2q(4, 14, 8)
  loss = lambda w, p: jnp.sum((q(w, p) - W) ** 2) + q.penalty(p)
  params = jax.tree.map(lambda p: p + 0.3, q.init(W))
  dw, dp = jax.grad(loss, argnums=(0, 1))(W, params)
  assert all(bool(jnp.any(g != 0)) for g in [dw, *dp.values()])
  assert float(q.penalty(params)) > 0


@pytest.mark.parametrize('args', [(8, 8, 8), (1, 16, 8), (9, 16, 8)])
def test_bad_input(args):
  with pytest.raises(ValueError, match='accumulator'):
    accumulator.A2q(*args)
