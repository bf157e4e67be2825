import jax.numpy as jnp
import numpy as np
import pytest

from lowbit.quantize import dyadic

RATIOS = [0.0123456789, 0.5, 0.999999, 1.0, 3.7, 1e-6, 2e-9, 1000.3, 0.0]


def test_the_published_number():
  scale = dyadic.dyadic(0.0123456789)
  assert (int(scale.multiplier), int(scale.shift)) == (1696777188, 37)


@pytest.mark.parametrize('ratio', RATIOS)
def test_requantize_is_exact_in_integers(ratio):
  rng = np.random.default_rng(0)
  acc = rng.integers(-(2**31) + 1, 2**31, 4000)
  acc = np.concatenate([acc, [0, 1, -1, 2**31 - 1, -(2**31) + 1]])
  scale = dyadic.dyadic(ratio)
  m, e = int(scale.multiplier), int(scale.shift)
  half = (1 << e) >> 1
  want = [min((abs(int(a)) * m + half) >> e, 2**31 - 1) for a in acc]
  want = np.where(acc < 0, -1, 1) * np.array(want)
  got = dyadic.requantize(jnp.asarray(acc, jnp.int32), scale)
  np.testing.assert_array_equal(got, want)
  # One unit of the last place against the real scale, at most.
  real = np.clip(np.round(acc * ratio), -(2**31) + 1, 2**31 - 1)
  assert np.abs(np.asarray(got, np.int64) - real).max() <= 1


def test_scales_of_channels_broadcast():
  scale = dyadic.dyadic(np.array([0.5, 0.25]))
  got = dyadic.requantize(jnp.array([[8, 8], [-3, 100]], jnp.int32), scale)
  assert got.tolist() == [[4, 2], [-2, 25]]


@pytest.mark.parametrize('bad', [-1.0, np.nan, np.inf, 2.0**31, 2.0**-33])
def test_bad_ratios(bad):
  with pytest.raises(ValueError, match='finite'):
    dyadic.dyadic(bad)


def test_accumulators_are_int32():
  with pytest.raises(TypeError, match='int32'):
    dyadic.requantize(jnp.ones(3), dyadic.dyadic(0.5))
