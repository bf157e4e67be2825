import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lowbit as lb
from lowbit.quantize import nested

X = jax.random.normal(jax.random.key(0), (64, 1024))
Q = lb.quantize(X, 'int8@channel')


@pytest.mark.parametrize('bits', [2, 3, 4, 6, 8])
def test_narrow_rounds_the_stored_codes(bits):
  step = 2 ** (8 - bits)
  limit = 2 ** (bits - 1) - 1
  want = np.clip(np.round(np.asarray(Q.codes) / step), -limit, limit)
  got = nested.narrow(Q, bits)
  np.testing.assert_array_equal(got.codes, want)
  np.testing.assert_allclose(got.scale, np.asarray(Q.scale) * step)
  assert got.spec.format.bits == bits


def test_double_rounding_is_nearly_direct_and_truncation_is_not():
  for bits in (2, 3, 4):
    error = lambda q: float(jnp.mean((lb.dequantize(q) - X) ** 2))
    double = nested.narrow(Q, bits)
    direct = lb.quantize.quantize_with(X, double)
    assert error(double) < 1.03 * error(direct)
    assert error(nested.narrow(Q, bits, truncate=True)) > 3 * error(direct)


def test_bad_input():
  with pytest.raises(ValueError, match='2..8'):
    nested.narrow(Q, 1)
  with pytest.raises(ValueError, match='signed integers'):
    nested.narrow(lb.quantize(X, 'nf4@channel'), 2)
