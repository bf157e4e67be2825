import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lowbit as lb
from lowbit.solvers import float_search

KEYS = jax.random.split(jax.random.key(0), 4)
W = jax.random.t(KEYS[0], 5.0, (24, 64)) / 8
X = jax.random.normal(KEYS[1], (128, 64)) * jnp.exp(
  0.5 * jax.random.normal(KEYS[2], (1, 64))
)


def output_error(w, x):
  return float(jnp.sum((x @ w.T - X @ W.T) ** 2))


def apply(choice):
  """Q(x) of the found activation format."""
  scale = choice.activation_scale
  return choice.activation.round(X / scale) * scale


def test_searched_floats_beat_maxima_and_report_their_error():
  found = float_search.search_floats(W, X)
  weight = lb.dequantize(found.weight)
  assert weight.shape == W.shape
  got = output_error(weight, apply(found))
  np.testing.assert_allclose(got, found.error, rtol=1e-3)
  plain = output_error(
    lb.fake_quantize(W, 'e2m1@channel'), lb.fake_quantize(X, 'e2m1@tensor')
  )
  assert got < 0.85 * plain
  names = {f.name for f in float_search.splits(4)}
  assert names == {'e3m0', 'e2m1', 'e1m2'}
  assert found.activation.name in names


def test_the_split_follows_the_tails():
  uniform = jax.random.uniform(KEYS[3], (16, 64), minval=-1.0)
  heavy = jax.random.t(KEYS[3], 1.5, (16, 64))
  few = jax.random.uniform(KEYS[0], (128, 64), minval=-1.0)
  exponent = lambda w: (
    float_search.search_floats(w, few).weight.spec.format.exponent
  )
  assert exponent(uniform) < exponent(heavy)


def test_eight_bits_and_bad_input():
  assert [f.name for f in float_search.splits(8)] == [
    'e5m2finite',
    'e4m3finite',
    'e3m4finite',
    'e2m5',
    'e1m6',
  ]
  with pytest.raises(ValueError, match='share `in`'):
    float_search.search_floats(W, X[:, :9])
  with pytest.raises(ValueError, match=r'3\.\.8'):
    float_search.search_floats(W, X, bits=2)
