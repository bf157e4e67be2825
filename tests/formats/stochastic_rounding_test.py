"""Stochastic rounding is unbiased: every format, between any two neighbours.

A number between neighbours a < b goes up with chance p = (x - a) / (b - a), so
that the count of `up` among n draws is binomial. Every count must be likelier
than FALSE_ALARM over the number of tests, on either side (Bonferroni): sound
formats fail once in a million runs with other keys, and with these never.
"""

import numpy as np
import pytest
from scipy import stats

from lowbit import formats

FALSE_ALARM = 1e-6
POINTS, DRAWS = 40, 4000
NAMES = [n for n in formats.names() if n != 'fp32']
NAMES += ['e7m8ieee_bias121', 'e3m0_bias4', 'posit3_0', 'posit16_2', 'log6']
NAMES += ['fixed16_20', 'uint16', 'dint6', 'nf8', 'flint8', 'halving6']
LEAST = FALSE_ALARM / (2 * POINTS * len(NAMES))


def points(fmt, rng):
  """(x, a, b): numbers inside random gaps of the format; all gaps if few."""
  values = fmt.values()
  values = values[(np.abs(values) >= 2.0**-120) | (values == 0)]
  gaps = len(values) - 1
  first = rng.permutation(gaps) if gaps < POINTS else rng.integers(0, gaps, 40)
  first = np.resize(first, POINTS)
  share = rng.uniform(0.01, 0.99, POINTS)
  low, high = values[first], values[first + 1]
  x = (low + share * (high - low)).astype(np.float32)
  return x, low, high


def unlikely(count, draws, p):
  """The smaller tail of a binomial count."""
  below = stats.binom.cdf(count, draws, p)
  above = stats.binom.sf(count - 1, draws, p)
  return np.minimum(below, above)


@pytest.mark.parametrize('name', NAMES)
def test_stochastic_rounding_is_unbiased(name):
  fmt = formats.get(name)
  rng = np.random.default_rng(0)
  x, low, high = points(fmt, rng)
  noise = rng.random((DRAWS, POINTS), np.float32)
  wide = np.broadcast_to(x, noise.shape)
  got = np.asarray(fmt.round(wide, 'stochastic', noise), np.float64)
  is_up = got == high.astype(np.float32)
  assert (is_up | (got == low.astype(np.float32))).all()
  p = (x.astype(np.float64) - low) / (high - low)
  tails = unlikely(is_up.sum(0), DRAWS, np.clip(p, 0, 1))
  assert tails.min() > LEAST, (x[tails.argmin()], tails.min())


def test_the_test_sees_a_bias():
  """Five per cent of a gap, as from noise that never reaches 1."""
  fmt = formats.get('e2m1')
  rng = np.random.default_rng(0)
  x, low, high = points(fmt, rng)
  noise = rng.random((DRAWS, POINTS), np.float32) * np.float32(0.95)
  got = fmt.round(np.broadcast_to(x, noise.shape), 'stochastic', noise)
  p = (x - low) / (high - low)
  assert unlikely((got == high).sum(0), DRAWS, p).min() < LEAST


@pytest.mark.parametrize('name', NAMES)
def test_values_stay(name):
  fmt = formats.get(name)
  values = fmt.values()
  values = values[(np.abs(values) >= 2.0**-120) | (values == 0)]
  x = values.astype(np.float32)
  for noise in (0.0, 0.5, 1 - 2.0**-24):
    got = fmt.round(x, 'stochastic', np.full(x.shape, noise, np.float32))
    np.testing.assert_array_equal(got, x)
  np.testing.assert_array_equal(fmt.round(x, 'floor'), x)
