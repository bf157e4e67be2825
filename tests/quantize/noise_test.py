"""The noise of stochastic rounding, by tests of its distribution.

Each bound is passed by chance in one of about 10^6 sets of keys.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from lowbit.quantize import noise

LEAST = 1e-6
SIZE = 2**18


def draw(seed, shape=(SIZE,)):
  return np.asarray(noise.uniform(jax.random.key(seed), shape), np.float64)


@pytest.mark.parametrize('seed', range(4))
def test_elements_of_one_key_are_uniform(seed):
  u = draw(seed)
  assert u.min() >= 0
  assert u.max() < 1
  assert (u * 2**24 % 1 == 0).all()
  for bins in (2, 256, 4096):
    count = np.bincount((u * bins).astype(int), minlength=bins)
    assert stats.chisquare(count).pvalue > LEAST
  low_bits = (u * 2**24).astype(int) % 256
  assert stats.chisquare(np.bincount(low_bits)).pvalue > LEAST


def correlation_is_chance(a, b):
  z = np.corrcoef(a, b)[0, 1] * np.sqrt(len(a))
  return 2 * stats.norm.sf(abs(z)) > LEAST / 100


def test_neighbours_are_independent():
  u = draw(0)
  for lag in (1, 2, 3, 16, 32, 64, 128, 4096, 2**16):
    a, b = u[:-lag], u[lag:]
    assert correlation_is_chance(a, b)
    pairs = (a * 16).astype(int) * 16 + (b * 16).astype(int)
    assert stats.chisquare(np.bincount(pairs, minlength=256)).pvalue > LEAST


def test_keys_are_independent():
  keys = jax.random.split(jax.random.key(7), 64)
  u = np.asarray(jax.vmap(lambda k: noise.uniform(k, (4096,)))(keys))
  for a, b in itertools.pairwise(u):
    assert correlation_is_chance(a, b)
  near = [draw(seed, (4096,)) for seed in range(8)]  # Keys of like bits.
  for a, b in itertools.pairwise(near):
    assert correlation_is_chance(a, b)


def test_one_element_is_uniform_over_keys():
  keys = jax.random.split(jax.random.key(3), 4096)
  u = np.asarray(jax.vmap(lambda k: noise.uniform(k, (5,)))(keys))
  for element in u.T:
    assert stats.kstest(element, 'uniform').pvalue > LEAST


def test_shape_and_key_fix_it():
  key = jax.random.key(0)
  flat = noise.uniform(key, (24,))
  assert flat.dtype == jnp.float32
  np.testing.assert_array_equal(noise.uniform(key, (2, 3, 4)).ravel(), flat)
  np.testing.assert_array_equal(
    jax.jit(noise.uniform, static_argnums=1)(key, (24,)), flat
  )
  assert noise.uniform(key, ()).shape == ()
  assert noise.uniform(jax.random.key(0, impl='rbg'), (3, 0)).shape == (3, 0)
  assert not np.array_equal(noise.uniform(jax.random.key(1), (24,)), flat)
