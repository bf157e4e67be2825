"""The dynamic tree in arithmetic, against its table in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lowbit import formats

NAMES = (
  'dynamic6',
  'udynamic6',
  'dynamic7',
  'udynamic7',
  'dynamic8',
  'udynamic8',
)
SLACK = 2.0**-14  # Of a step: how near the middle may go to either side.


def inputs(values):
  """Magnitudes of all decades, and both sides of each middle."""
  rng = np.random.default_rng(0)
  n = 2**17
  low, high = values[:-1], values[1:]
  middle = (low + high) / 2
  parts = [
    rng.uniform(-1.2, 1.2, n),
    rng.choice([-1, 1], n) * 10 ** rng.uniform(-9, 0.5, n),
    values,
    *(middle + (high - low) * d for d in (-2 * SLACK, 2 * SLACK, 0.3)),
    [-1, 1, -np.nextafter(1, 2), np.nextafter(1, 2), 1e30, -1e30, 0.0, -0.0],
  ]
  return np.concatenate(parts).astype(np.float32)


@pytest.mark.parametrize('name', NAMES)
def test_codes_are_the_nearest(name):
  fmt = formats.get(name)
  values = np.asarray(fmt.table, np.float64)
  x = inputs(values)
  code = np.asarray(jax.jit(fmt.computed_codes)(jnp.asarray(x))).astype(int)
  inside = np.clip(x.astype(np.float64), values[0], values[-1])
  nearest = np.abs(inside[:, None] - values).argmin(1)
  assert np.abs(code - nearest).max() <= 1
  wrong = code != nearest
  below = np.minimum(code, nearest)[wrong]
  step = values[below + 1] - values[below]
  middle = (values[below + 1] + values[below]) / 2
  assert (np.abs(inside[wrong] - middle) < SLACK * step).all()
  assert wrong.mean() < 1e-4


@pytest.mark.parametrize('name', NAMES)
def test_nan_and_infinities(name):
  fmt = formats.get(name)
  x = jnp.asarray([jnp.nan, jnp.inf, -jnp.inf], jnp.float32)
  want = [0, fmt.table[-1], fmt.table[0]]
  got = fmt.computed_values(fmt.computed_codes(x))
  np.testing.assert_array_equal(got, np.float32(want))


@pytest.mark.parametrize('name', NAMES)
def test_computed_values_are_the_table(name):
  fmt = formats.get(name)
  codes = jnp.asarray(fmt.codes())
  want = np.asarray(fmt.table, np.float32)
  for compute in (fmt.computed_values, jax.jit(fmt.computed_values)):
    np.testing.assert_array_equal(compute(codes), want)


def test_every_code_comes_back():
  for name in NAMES:
    fmt = formats.get(name)
    codes = jnp.asarray(fmt.codes())
    again = fmt.computed_codes(fmt.computed_values(codes))
    np.testing.assert_array_equal(again, codes)
