"""One pass gives the bits of `quantize` and `pack`."""

import chex
import hypothesis
import jax
import jax.numpy as jnp
import pytest
from hypothesis import strategies as st

import lowbit as lb
from lowbit.kernels import quantize_rows as op

KERNELS = ['tpu', 'gpu']
quantize_rows = op.quantize_rows


def same(x, spec, implementation):
  got = quantize_rows(
    x, spec, implementation=implementation, interpret=implementation in KERNELS
  )
  want = lb.quantize(x, spec)
  if isinstance(got, lb.PackedQTensor):
    want = lb.pack(want)
  chex.assert_trees_all_equal(got, want)


@pytest.mark.parametrize('implementation', KERNELS)
@pytest.mark.parametrize(
  ('m', 'k', 'spec'),
  [
    (1, 512, 'int8@token'),
    (33, 768, 'int4@token'),
    pytest.param(3, 512, 'int8@g128', marks=pytest.mark.slow),
    pytest.param(2, 1024, 'int4@g256', marks=pytest.mark.slow),
  ],
)
@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_same_bits(implementation, m, k, spec, dtype):
  x = jax.random.normal(jax.random.key(k), (m, k), dtype)
  same(x.at[0].set(0.0).at[0, 3].set(2.5), spec, implementation)


@pytest.mark.parametrize('implementation', KERNELS)
@pytest.mark.parametrize('spec', ['int8@token', 'int4@token'])
def test_zeros_ties_and_extremes(implementation, spec):
  x = jnp.zeros((6, 256))
  high = 127.0 if spec.startswith('int8') else 7.0
  ties = jnp.arange(-128, 128) / 2
  x = x.at[1].set(jnp.clip(ties, -high, high))
  x = x.at[2, 7].set(jnp.nan).at[3, 8].set(jnp.inf).at[4].set(1e-44)
  same(x.at[5].set(3e38), spec, implementation)


@hypothesis.given(st.integers(1, 5), st.integers(1, 700))
@hypothesis.settings(deadline=None, max_examples=3)
def test_any_shape_is_taken(m, k):
  x = jax.random.normal(jax.random.key(k), (m, k))
  same(x, 'int4@token', None)


def test_errors_say_what_and_why():
  with pytest.raises(ValueError, match='int8 or int4'):
    quantize_rows(jnp.ones((2, 256)), 'e4m3@token')
  with pytest.raises(ValueError, match='must be a matrix'):
    quantize_rows(jnp.ones((256,)))
  with pytest.raises(TypeError, match='floating'):
    quantize_rows(jnp.ones((2, 256), jnp.int32))
  with pytest.raises(ValueError, match='whole chunks'):
    quantize_rows(jnp.ones((2, 100)), implementation='tpu', interpret=True)
