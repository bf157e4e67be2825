"""Moments of known distributions, and what descending on them does."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lowbit.quantize import moments

RNG = np.random.default_rng(0)


def draw(name, n=400_000, **how):
  return jnp.asarray(getattr(RNG, name)(size=n, **how), jnp.float32)


@pytest.mark.parametrize(
  ('name', 'kurtosis', 'skewness'),
  [
    ('uniform', 1.8, 0),
    ('normal', 3, 0),
    ('laplace', 6, 0),
    ('gumbel', 5.4, 1.14),
  ],
)
def test_known_moments(name, kurtosis, skewness):
  x = 3 + 7 * draw(name)
  np.testing.assert_allclose(moments.kurtosis(x), kurtosis, rtol=0.03)
  np.testing.assert_allclose(moments.skewness(x), skewness, atol=0.03)


def test_descent_makes_weights_uniform():
  start = draw('normal', 4000) + 0.3 * draw('exponential', 4000)
  slope = jax.grad(lambda w: moments.weight_distribution([w]))
  step = lambda w, _: (w - 200 * slope(w), None)
  w, _ = jax.lax.scan(step, start, length=1500)
  assert abs(float(moments.kurtosis(w)) - 1.8) < 0.05
  assert abs(float(moments.skewness(w))) < 0.05
  assert float(moments.kurtosis(start)) > 2.8


def test_gaussian_entropy():
  x = np.asarray(draw('normal', 60)).reshape(3, 20)
  want = np.mean(np.log(1 + x.var(axis=1)))
  np.testing.assert_allclose(
    moments.gaussian_entropy(jnp.asarray(x)), want, rtol=1e-5
  )
  slope = jax.grad(moments.gaussian_entropy)(jnp.ones((2, 3)))
  assert np.all(np.isfinite(slope))


def test_constants_are_finite_and_nothing_raises():
  for f in (moments.kurtosis, moments.skewness):
    assert float(f(jnp.ones(5))) == 0
    assert np.all(np.isfinite(jax.grad(f)(jnp.ones(5))))
  with pytest.raises(ValueError, match='empty'):
    moments.weight_distribution([])
