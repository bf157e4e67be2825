"""Two gradients: uphill is uphill, and both are those of the definition."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lowbit import optim
from lowbit.optim import flatness

V = {'a': jnp.asarray([1.0, -2.0]), 'b': jnp.asarray([[0.5]])}


def loss(v):
  return jnp.sum(v['a'] ** 4) + 3.0 * jnp.sum(v['b'] ** 2)


def test_uphill_has_the_length_rho_and_raises_the_loss():
  g = jax.grad(loss)(V)
  up = flatness.uphill(g, 0.1)
  length = np.sqrt(sum(float(jnp.sum(x**2)) for x in jax.tree.leaves(up)))
  assert length == pytest.approx(0.1, rel=1e-5)
  there = jax.tree.map(jnp.add, V, up)
  rng = np.random.default_rng(0)
  for _ in range(20):
    d = rng.normal(size=3)
    d = 0.1 * d / np.linalg.norm(d)
    other = {
      'a': V['a'] + jnp.float32(d[:2]),
      'b': V['b'] + jnp.float32(d[2:, None]),
    }
    assert loss(other) <= loss(there) * 1.001
  zero = jax.tree.map(jnp.zeros_like, g)
  assert not any(np.any(x) for x in jax.tree.leaves(flatness.uphill(zero, 0.1)))


@pytest.mark.parametrize('alpha', [0.0, 0.01])
def test_both_gradients(alpha):
  value, task, smooth = optim.two_gradients(loss, V, 0.1, alpha)
  assert value == loss(V)
  g = {'a': 4 * np.asarray(V['a']) ** 3, 'b': 6 * np.asarray(V['b'])}
  norm = np.sqrt(sum((x**2).sum() for x in g.values()))
  there = {k: np.asarray(V[k]) + (0.1 / norm - alpha) * g[k] for k in V}
  for k, want in g.items():
    np.testing.assert_allclose(task[k], want, rtol=1e-5)
  np.testing.assert_allclose(smooth['a'], 4 * there['a'] ** 3, rtol=1e-5)
  np.testing.assert_allclose(smooth['b'], 6 * there['b'], rtol=1e-5)


def test_no_distance_is_refused():
  with pytest.raises(ValueError, match='rho'):
    optim.two_gradients(loss, V, 0.0)
