import ml_dtypes
import numpy as np
import pytest

from lowbit.quantize import entropy

RNG = np.random.default_rng(0)


def entropy_bits(exponent):
  p = np.bincount(exponent) / exponent.size
  p = p[p > 0]
  return -(p * np.log2(p)).sum()


@pytest.mark.parametrize('sigma', [0.01, 0.02, 1.0])
def test_lossless_at_the_entropy(sigma):
  x = (RNG.standard_normal((256, 512)) * sigma).astype(ml_dtypes.bfloat16)
  c = entropy.compress(x)
  np.testing.assert_array_equal(
    entropy.decompress(c).view(np.uint16), x.view(np.uint16)
  )
  exponent = (x.view(np.uint16) >> 7).astype(np.int64) & 0xFF
  least = entropy_bits(exponent.reshape(-1))
  np.testing.assert_allclose(least, 2.545, atol=0.02)
  assert 32 * c.words.size < 1.01 * least * x.size + 64
  assert c.bits / x.size < 10.65


def test_special_values_and_constants_come_back():
  x = np.array([0.0, -0.0, np.nan, np.inf, -np.inf, 1e-38, 3.0])
  for array in (x, np.full((3, 3), 0.5), np.zeros(1)):
    array = array.astype(ml_dtypes.bfloat16)
    back = entropy.decompress(entropy.compress(array))
    np.testing.assert_array_equal(back.view(np.uint16), array.view(np.uint16))


@pytest.mark.parametrize('bits, snr', [(3, 31.5), (1, 19.7)])
def test_lossy_rounds_to_nearest(bits, snr):
  x = RNG.standard_normal(100_000).astype(ml_dtypes.bfloat16)
  y = entropy.decompress(entropy.compress(x, bits)).astype(np.float64)
  exact = x.astype(np.float64)
  exponent = np.frexp(exact)[1]
  step = 2.0 ** (exponent - 1 - bits)
  np.testing.assert_array_equal(y, np.round(exact / step) * step)
  got = 10 * np.log10((exact**2).sum() / ((exact - y) ** 2).sum())
  np.testing.assert_allclose(got, snr, atol=0.15)


def test_bad_input():
  with pytest.raises(TypeError, match='bfloat16'):
    entropy.compress(np.zeros(3, np.float32))
  with pytest.raises(ValueError, match=r'0\.\.7'):
    entropy.compress(np.zeros(3, ml_dtypes.bfloat16), 8)
  with pytest.raises(ValueError, match='NaN'):
    entropy.compress(np.full(3, np.nan, ml_dtypes.bfloat16), 3)
