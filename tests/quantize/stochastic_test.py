"""Stochastic quantization: unbiased per element, and fixed by its key.

Counts are binomial, and judged as in `stochastic_rounding_test.py`: a million
other keys would give about one false alarm.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import lowbit as lb

DRAWS, SHAPE = 3000, (2, 48)
SPECS = (
  'int4z@g16~stochastic',
  'e2m1@b32:e8m0-rceil~stochastic',
  'bitmod4@g16~stochastic',
  'afpq_nf4@g16~stochastic',
)
SLOW = (
  'int4@g32~stochastic',
  'e2m1@b16:(e4m3@tensor)~stochastic',
  'nf4z@g16~stochastic',
  'posit8_1@channel~stochastic',
  'int1@tensor~stochastic',
)
ALL = (*SPECS, *(pytest.param(s, marks=pytest.mark.slow) for s in SLOW))
LEAST = 1e-6 / (2 * (len(SPECS) + len(SLOW)) * 96)


@pytest.mark.parametrize('spec', ALL)
def test_unbiased_and_reproducible(spec):
  x = jax.random.normal(jax.random.key(0), SHAPE)
  fake = jax.jit(lambda key: lb.fake_quantize(x, spec, key=key))
  keys = jax.random.split(jax.random.key(1), DRAWS)
  y = np.asarray(jax.jit(jax.vmap(fake))(keys), np.float64)
  np.testing.assert_array_equal(fake(keys[3]), fake(keys[3]))
  assert not np.array_equal(y[0], y[1])
  low, high = y.min(0), y.max(0)
  is_up = y == high
  assert (is_up | (y == low)).all()  # Two neighbours.
  exact = np.asarray(x, np.float64)
  moves = high > low
  assert moves.mean() > 0.6
  # What never moves is a value of the format, or saturated.
  step = (high - low).max()
  assert (np.abs(y[0] - exact)[~moves] < step / 2 + 1e-6).all()
  p = (exact - low)[moves] / (high - low)[moves]
  assert p.min() > -1e-5
  assert p.max() < 1 + 1e-5
  count, p = is_up.sum(0)[moves], np.clip(p, 0, 1)
  tails = np.minimum(
    stats.binom.cdf(count, DRAWS, p), stats.binom.sf(count - 1, DRAWS, p)
  )
  # Within 1e-5 of a value the arithmetic of the scale decides, not chance.
  clear = (p > 1e-5) & (p < 1 - 1e-5)
  assert tails[clear].min() > LEAST


def test_what_cannot_be_stochastic_raises():
  with pytest.raises(ValueError, match='no key reaches them'):
    lb.Spec.parse('int4@g32:(int8@g16~stochastic)')
  with pytest.raises(ValueError, match='key'):
    lb.quantize(jnp.ones(3), 'int4~stochastic')
