"""Lookups equal products."""

import functools

import chex
import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st

import lowbit as lb
from lowbit.kernels import lut_matmul as op
from lowbit.kernels.int_matmul import tuned as int_tiles
from lowbit.kernels.lut_matmul import (
  api,
  layout,
  pallas_tpu,
  reference,
  tuned,
  two_bit_tpu,
)

KERNELS = ['tpu', 'gpu']


def operands(m, k, n, spec, seed=0):
  rng = np.random.default_rng(seed)
  x = jnp.asarray(rng.normal(size=(m, k)), jnp.float32)
  w = jnp.asarray(rng.normal(size=(k, n)), jnp.float32)
  return x, lb.quantize(w, spec, axis=-2)


def run(x, w, implementation, **kwargs):
  interpret = implementation in KERNELS
  return op.lut_matmul(
    x, w, implementation=implementation, interpret=interpret, **kwargs
  )


@pytest.mark.parametrize('implementation', [*KERNELS, 'xla', 'reference'])
@pytest.mark.parametrize(
  ('m', 'k', 'n', 'spec'),
  [
    (9, 100, 48, 'int2@g64'),
    pytest.param(2, 192, 16, 'int3z@g128', marks=pytest.mark.slow),
    pytest.param(3, 130, 16, 'int1@channel', marks=pytest.mark.slow),
  ],
)
def test_exact_tables_give_the_product(implementation, m, k, n, spec):
  x, q = operands(m, k, n, spec)
  y = run(x, op.lut_weight(q), implementation)
  chex.assert_trees_all_close(y, x @ lb.dequantize(q), rtol=1e-4, atol=1e-4)


def test_blocks_of_all_axes_on_a_tpu():
  x, q = operands(35, 256, 200, 'int1@g64')
  w, tiles = op.lut_weight(q), tuned.Tiles(16, 128)
  run = functools.partial(
    pallas_tpu.lut_matmul, quantized=False, tiles=tiles, interpret=True
  )
  y = run(x, w)
  chex.assert_trees_all_close(y, x @ lb.dequantize(q), rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_whole_numbers_are_exact():
  rng = np.random.default_rng(0)
  x = jnp.asarray(rng.integers(-127, 128, (2, 64)), jnp.float32)
  codes = jnp.asarray(rng.integers(-7, 8, (64, 16)), jnp.float32)
  q = lb.quantize(codes.at[0].set(7.0), 'int4@channel', axis=-2)
  for implementation in (*KERNELS, 'xla', 'reference'):
    y = run(x, op.lut_weight(q), implementation)
    np.testing.assert_array_equal(y, x @ lb.dequantize(q))


@pytest.mark.parametrize('bits', [1, 2, 3, 4])
def test_remapped_codes_are_the_same_numbers(bits):
  u = np.arange(2**bits)
  for s, z in ((0.5, 0), (2.0, 2 ** (bits - 1)), (1.0, 2**bits - 1)):
    mapped = 2 * u - (2**bits - 1)
    zero = 2 * z + 1 - 2**bits
    np.testing.assert_array_equal(s * (u - z), s / 2 * (mapped - zero))


def test_tables_are_odd_so_half_is_enough():
  x = jax.random.normal(jax.random.key(0), (1, 4))
  table = layout.tables(x)[0, 0]
  assert table.shape == (8,)
  for index in range(16):
    signs = 2.0 * np.array([(index >> j) & 1 for j in range(4)]) - 1
    negate, low = index >> 3, index & 7
    got = -table[7 - low] if negate else table[low]
    chex.assert_trees_all_close(got, jnp.sum(signs * x[0]), atol=1e-6)


@pytest.mark.parametrize('implementation', [*KERNELS, 'xla'])
def test_quantized_tables(implementation):
  x, q = operands(3, 128, 32, 'int2@g64')
  w = op.lut_weight(q)
  want = run(x, w, 'reference', quantize_tables=True)
  got = run(x, w, implementation, quantize_tables=True)
  chex.assert_trees_all_close(got, want, rtol=1e-5, atol=1e-5)
  true = x @ lb.dequantize(q)
  error = jnp.sum((got - true) ** 2) / jnp.sum(true**2)
  assert 1e-6 < error < 2e-3
  table, _ = layout.quantize_tables(layout.tables(x))
  assert int(jnp.max(jnp.abs(table.astype(jnp.int32)))) == 127


def test_storage_is_the_bits_of_the_codes():
  _, q = operands(1, 512, 16, 'int3@channel')
  w = op.lut_weight(q)
  assert w.words.size * 8 == 3 * 512 * 16


def test_work_is_linear_in_bits():
  one, four = (reference.count_operations(4096, 64, b) for b in (1, 4))
  assert four['adds'] == 4 * one['adds'] == one['macs_of_dense']
  assert four['build_adds'] == one['build_adds']


@hypothesis.given(
  st.integers(1, 9),
  st.integers(1, 200),
  st.integers(1, 2).map(lambda n: 16 * n),
  st.sampled_from(['int2', 'int3z@g64']),
  st.sampled_from(['gpu', 'xla']),
)
@hypothesis.settings(deadline=None, max_examples=3)
def test_random_shapes(m, k, n, spec, implementation):
  x, q = operands(m, k, n, spec, seed=k)
  y = run(x, op.lut_weight(q), implementation)
  chex.assert_trees_all_close(y, x @ lb.dequantize(q), rtol=1e-3, atol=1e-3)


def test_bfloat16_and_the_gradient():
  x, q = operands(2, 128, 16, 'int2@g64')
  w = op.lut_weight(q)
  assert run(x.astype(jnp.bfloat16), w, 'xla').dtype == jnp.bfloat16
  chex.assert_trees_all_close(api.dense(w), lb.dequantize(q), atol=1e-5)
  got = jax.grad(lambda x: jnp.sum(jnp.sin(op.lut_matmul(x, w))))(x)
  want = jnp.cos(x @ lb.dequantize(q)) @ lb.dequantize(q).T
  chex.assert_trees_all_close(got, want, rtol=1e-4, atol=1e-4)


UNIFORM = tuple(float((w - 2) * a) for w in range(4) for a in range(4))
CURVED = tuple(v * abs(v) / 7 + 0.1 for v in UNIFORM)


@pytest.mark.parametrize('implementation', [*KERNELS, 'xla', 'reference'])
@pytest.mark.parametrize('table', [UNIFORM, CURVED], ids=['int', 'float'])
def test_two_bit_products(implementation, table):
  rng = np.random.default_rng(0)
  a = rng.integers(0, 4, (5, 300)).astype(np.uint8)
  w = rng.integers(0, 4, (300, 32)).astype(np.uint8)
  words = lb.quantize.packing.pack_codes(jnp.asarray(w.T), 2).T
  got = op.lut_gemm_2bit(
    jnp.asarray(a),
    words,
    table,
    implementation=implementation,
    interpret=implementation in KERNELS,
  )
  index = 4 * w[None].astype(int) + a[:, :, None]
  want = np.asarray(table)[index].sum(1)
  if table is UNIFORM:
    assert got.dtype == jnp.int32
    np.testing.assert_array_equal(got, want)
    levels = (w.astype(int) - 2).T
    np.testing.assert_array_equal(got, a.astype(int) @ levels.T)
  else:
    np.testing.assert_allclose(got, want, rtol=1e-5)


def test_two_bit_blocks_of_all_axes_on_a_tpu():
  rng = np.random.default_rng(0)
  a = jnp.asarray(rng.integers(0, 4, (70, 512)), jnp.uint8)
  w = jnp.asarray(rng.integers(0, 4, (200, 512)), jnp.uint8)
  words = lb.quantize.packing.pack_codes(w, 2).T
  tiles = int_tiles.Tiles(32, 128, 1)  # 3 by 2 blocks, K in 2 steps.
  got = two_bit_tpu.product(a, words, UNIFORM, True, tiles)
  want = np.asarray(a, int) @ (np.asarray(w, int) - 2).T
  np.testing.assert_array_equal(got, want)


def test_errors_say_what_and_why():
  x, q = operands(2, 128, 16, 'int2')
  w = op.lut_weight(q)
  with pytest.raises(TypeError, match='lut_weight'):
    op.lut_matmul(x, q)
  with pytest.raises(ValueError, match='must be 128 long'):
    op.lut_matmul(x[:, :64], w)
  with pytest.raises(ValueError, match='multiples of 64'):
    op.lut_weight(lb.quantize(jnp.ones((128, 16)), 'int4@g32', axis=-2))
  with pytest.raises(ValueError, match='no integer format'):
    op.lut_weight(lb.quantize(jnp.ones((128, 16)), 'nf4', axis=-2))
  odd = op.lut_weight(lb.quantize(jnp.ones((128, 9)), 'int4', axis=-2))
  with pytest.raises(ValueError, match='not a multiple of 16'):
    run(x, odd, 'gpu')
  with pytest.raises(ValueError, match='16 products'):
    op.lut_gemm_2bit(jnp.zeros((1, 4), jnp.uint8), w.words[0], (1.0,) * 15)
  with pytest.raises(ValueError, match='four codes a byte'):
    op.lut_gemm_2bit(jnp.zeros((1, 4), jnp.uint8), w.words[0], UNIFORM)
