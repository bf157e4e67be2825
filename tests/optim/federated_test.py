"""Masks against all subsets, and averages by hand."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest

from lowbit.optim import federated

RNG = np.random.default_rng(0)


def cosine(h, w):
  size = np.linalg.norm(w)
  return h @ w / size if size else 0.0


@pytest.mark.parametrize('seed', range(6))
def test_no_subset_is_better(seed):
  rng = np.random.default_rng(seed)
  h, w = rng.normal(size=(2, 10)).astype(np.float32)
  w[rng.integers(10)] = 0
  mask = np.asarray(federated.compatible(jnp.asarray(h), jnp.asarray(w)))
  assert set(np.unique(mask)) <= {0.0, 1.0}
  best = max(
    cosine(h, np.array(m) * w) for m in itertools.product((0, 1), repeat=10)
  )
  np.testing.assert_allclose(cosine(h, mask * w), best, rtol=1e-5)


def test_opposed_and_equal_changes():
  h = jnp.asarray(RNG.normal(size=(3, 4)), jnp.float32)
  np.testing.assert_array_equal(federated.compatible(h, 2 * h), np.ones((3, 4)))
  assert not np.any(federated.compatible(h, -h))
  with pytest.raises(ValueError, match='one shape'):
    federated.compatible(h, h[0])


def test_average():
  high = jnp.asarray([[1.0, 2.0], [3.0, 4.0]])
  lifted, mask = jnp.asarray([8.0, 9.0]), jnp.asarray([1.0, 0.0])
  got = federated.selective_average(high, [lifted], [mask])
  np.testing.assert_allclose(got, [(1 + 3 + 8) / 3, 3.0])
