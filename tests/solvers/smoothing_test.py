"""Adaptive smoothing leaves what lies in the range, and helps."""

import jax
import jax.numpy as jnp
import numpy as np

import lowbit as lb
from lowbit import quantize, transforms

PARSE = quantize.Spec.parse


def layer():
  keys = jax.random.split(jax.random.key(0), 2)
  x = jax.random.normal(keys[0], (512, 128)).at[:, 5].multiply(50.0)
  return x, jax.random.normal(keys[1], (64, 128)) / 12


def test_only_outlier_channels_are_scaled_and_the_error_falls():
  x, w = layer()
  scale, errors = lb.solvers.search_range(
    (w,), x, PARSE('int4@channel'), PARSE('int8@token')
  )
  assert np.flatnonzero(np.asarray(scale) != 1).tolist() == [5]
  assert float(scale[5]) > 2
  assert float(errors.min()) < 0.5 * float(errors[0])


def test_the_errors_are_those_of_the_scale():
  x, w = layer()
  activation, spec = PARSE('int8@token'), PARSE('int4@channel')
  scale, errors = lb.solvers.search_range((w,), x, spec, activation)
  smooth = lb.fake_quantize(x / scale[None], activation)
  y = smooth @ lb.fake_quantize(w * scale[None], spec).T
  want = jnp.sum((y - x @ w.T) ** 2)
  np.testing.assert_allclose(errors.min(), want, rtol=1e-3)


def test_power_factors_are_chosen_by_error():
  fmt = lb.formats.get('int8')
  size = jnp.asarray([1, 1 / 2, 1 / 4, 1 / 8, 1 / 512])
  x = jax.random.uniform(jax.random.key(1), (2000, 5), minval=-1) * size[None]
  step, factors = transforms.power_factors(x, fmt, 3)
  np.testing.assert_array_equal(factors, [3, 2, 1, 0, 0])
  y = transforms.round_with_factors(x, fmt, step, factors)
  wide = step * 2.0 ** factors.astype(jnp.float32)
  assert bool(jnp.all(jnp.abs(y - x) <= wide[None] * 0.501))
  # Steps are shifts: every value is a whole number of the tensor's step.
  whole = y / step
  np.testing.assert_allclose(whole, jnp.rint(whole), atol=1e-3)
