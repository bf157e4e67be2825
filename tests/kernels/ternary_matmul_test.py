"""Serving ternary weights computes what training did."""

import chex
import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st

import lowbit as lb
from lowbit.kernels import int_matmul, ternary_matmul
from lowbit.kernels.ternary_matmul import reference, tables

KERNELS = ['tpu', 'gpu']


def operands(m, k, n, seed=0):
  keys = jax.random.split(jax.random.key(seed), 2)
  x = jax.random.normal(keys[0], (m, k))
  return x, jax.random.normal(keys[1], (k, n))


@pytest.mark.parametrize('implementation', [*KERNELS, 'xla', 'reference'])
@pytest.mark.parametrize(
  ('bits', 'm', 'k', 'n'),
  [
    (1.6, 1, 700, 16),
    pytest.param(1.6, 3, 640, 48, marks=pytest.mark.slow),
    pytest.param(2, 5, 300, 32, marks=pytest.mark.slow),
  ],
)
def test_integers_of_training(implementation, bits, m, k, n):
  x, w = operands(m, k, n)
  y, codes = reference.bit_linear(x, w, codes=True)
  packed = ternary_matmul.absmean(w, bits)
  interpret = implementation in KERNELS
  q = lb.quantize(x, 'int8@token')
  sums = int_matmul.int_matmul(
    q,
    packed,
    dtype=jnp.int32,
    implementation=implementation,
    interpret=interpret,
  )
  np.testing.assert_array_equal(sums, codes)
  got = ternary_matmul.ternary_matmul(
    x, packed, implementation=implementation, interpret=interpret
  )
  chex.assert_trees_all_close(got, y, rtol=1e-5, atol=1e-4)


@hypothesis.given(st.integers(1, 4), st.integers(1, 100), st.integers(0, 99))
@hypothesis.settings(deadline=None, max_examples=4)
def test_tables_lose_nothing(m, k, seed):
  rng = np.random.default_rng(seed)
  x = jnp.asarray(rng.integers(-127, 128, (m, k)), jnp.int8)
  codes = jnp.asarray(rng.integers(-1, 2, (k, 8)), jnp.int8)
  want = np.asarray(x, int) @ np.asarray(codes, int)
  for block in (6, None):
    w = ternary_matmul.table_pack(codes, block)
    np.testing.assert_array_equal(ternary_matmul.table_matmul(x, w), want)


def test_int8_tables_lose():
  rng = np.random.default_rng(0)
  x = jnp.asarray(rng.integers(-127, 128, (2, 96)), jnp.int8)
  codes = jnp.asarray(rng.integers(-1, 2, (96, 8)), jnp.int8)
  w = ternary_matmul.table_pack(codes)
  exact = ternary_matmul.table_matmul(x, w).astype(jnp.float32)
  lossy = ternary_matmul.table_matmul(x, w, int8_tables=True)
  assert float(jnp.max(jnp.abs(lossy - exact))) > 1


def test_all_triples_and_their_bits():
  grid = np.stack(np.meshgrid(*[[-1, 0, 1]] * 3, indexing='ij'))
  codes = jnp.asarray(grid.reshape(3, 27), jnp.int8)
  w = ternary_matmul.table_pack(codes, 3)
  eye = jnp.eye(3, dtype=jnp.int8)
  np.testing.assert_array_equal(ternary_matmul.table_matmul(eye, w), codes)
  assert tables.states(14, 3)[0].tolist() == [0, 0, 0]
  wide = ternary_matmul.table_pack(jnp.zeros((768 * 3, 4), jnp.int8))
  assert wide.bits_per_weight == pytest.approx(5 / 3)
  wide = ternary_matmul.table_pack(jnp.zeros((768, 4), jnp.int8), None)
  assert wide.bits_per_weight == 2
  packed = ternary_matmul.absmean(jnp.ones((640, 4)))
  assert packed.words.size * 8 / (640 * 4) == 1.6


def test_gradient_and_errors():
  x, w = operands(2, 64, 8)
  packed = ternary_matmul.absmean(w)
  got = jax.grad(lambda x: jnp.sum(ternary_matmul.ternary_matmul(x, packed)))(x)
  dense = lb.dequantize(lb.unpack(packed))
  chex.assert_trees_all_close(got, jnp.ones((2, 8)) @ dense.T, atol=1e-4)
  with pytest.raises(TypeError, match='quantized tensor'):
    ternary_matmul.ternary_matmul(x, w)
  with pytest.raises(ValueError, match='ternary or int2'):
    ternary_matmul.ternary_matmul(x, lb.quantize(w, 'int4', axis=-2))
  with pytest.raises(ValueError, match='1.6 or 2'):
    ternary_matmul.absmean(w, 3)
  with pytest.raises(ValueError, match='multiple of 3'):
    ternary_matmul.table_pack(jnp.zeros((8, 2), jnp.int8), 4)
  table = ternary_matmul.table_pack(jnp.zeros((8, 2), jnp.int8))
  with pytest.raises(ValueError, match=r'must be \[M, 8\]'):
    ternary_matmul.table_matmul(x, table)
