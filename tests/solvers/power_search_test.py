import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lowbit as lb
from lowbit.solvers import power_search

KEYS = jax.random.split(jax.random.key(0), 3)
W = jax.random.laplace(KEYS[0], (32, 48))
MIX = jnp.eye(48) + jax.random.normal(KEYS[1], (48, 48)) / 5
X = jax.random.normal(KEYS[2], (256, 48)) @ MIX
HESSIAN = X.T @ X / 256


def error(q):
  return float(jnp.sum((X @ (lb.dequantize(q) - W).T) ** 2))


@pytest.mark.parametrize('bits', [3, 4])
def test_learned_beats_searched_beats_uniform(bits):
  a = power_search.search_power(W, bits, (40, 52, 64, 100))
  nearest = lb.quantize(W, f'power{bits}_{a}@channel')
  learned = power_search.learn_power(W, HESSIAN, bits, steps=200)
  assert a < 100
  assert error(nearest) < error(lb.quantize(W, f'int{bits}@channel'))
  assert error(learned) < 0.75 * error(nearest)
  assert learned.spec.format.bits == bits
  moved = jnp.abs(
    learned.codes.astype(jnp.int32) - nearest.codes.astype(jnp.int32)
  )
  assert int(jnp.max(moved)) >= 1
  np.testing.assert_array_equal(
    lb.unpack(lb.pack(learned)).codes, learned.codes
  )


def test_one_exponent_for_several_matrices():
  heavy = jax.random.t(KEYS[0], 3.0, (32, 64))
  one = power_search.search_power([heavy], 4, (30, 60, 90))
  both = power_search.search_power([heavy, 9 * heavy[:, :48] ** 3], 4, (30, 90))
  assert one < 90
  assert both == 30


def test_bad_input():
  with pytest.raises(ValueError, match='bits'):
    power_search.learn_power(W, HESSIAN, 2)
  with pytest.raises(ValueError, match='hessian'):
    power_search.learn_power(W, HESSIAN[:9], 4)
