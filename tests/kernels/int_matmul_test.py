"""int_matmul: bare sums are exact, scaled ones equal the reference."""

import chex
import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st

import lowbit as lb
from lowbit.experiment import targets
from lowbit.kernels import int_matmul as op
from lowbit.kernels.int_matmul import api, pallas_tpu, pieces, tuned

KERNELS = ['tpu', 'gpu']


def slow(*case):
  return pytest.param(*case, marks=pytest.mark.slow)


def operands(m, k, n, x_spec, w_spec, seed=0, pack=True):
  rng = np.random.default_rng(seed)
  x = jnp.asarray(rng.normal(size=(m, k)), jnp.float32)
  w = jnp.asarray(rng.normal(size=(k, n)), jnp.float32)
  q = lb.quantize(w, w_spec, axis=-2)
  return lb.quantize(x, x_spec), lb.pack(q) if pack else q


def run(x, w, implementation, **kwargs):
  interpret = implementation in KERNELS
  return op.int_matmul(
    x, w, implementation=implementation, interpret=interpret, **kwargs
  )


def exact(x, w):
  """The bare sums in int64, from codes that NumPy unpacked."""
  q = lb.unpack(w) if isinstance(w, lb.PackedQTensor) else w
  codes = np.asarray(q.codes, np.int64)
  if q.zero is not None:
    codes = codes - np.asarray(q.zero, np.int64)
  return np.asarray(x.codes, np.int64) @ codes


@pytest.mark.parametrize('implementation', [*KERNELS, 'xla', 'reference'])
@pytest.mark.parametrize(
  ('m', 'k', 'n', 'w_spec'),
  [
    slow(1, 512, 128, 'int8@channel'),
    (33, 300, 144, 'int4@channel'),
    (2, 100, 16, 'int4@channel'),
    (4, 256, 48, 'int4z@channel'),
    slow(5, 300, 32, 'int7@channel'),
    slow(3, 256, 16, 'int2@tensor'),
    slow(3, 256, 16, 'int1@channel'),
  ],
)
def test_bare_sums_are_exact(implementation, m, k, n, w_spec):
  x, w = operands(m, k, n, 'int8@token', w_spec)
  if implementation == 'gpu' and k < 256:
    with pytest.raises(ValueError, match='less than a chunk'):
      run(x, w, implementation, dtype=jnp.int32)
    return
  y = run(x, w, implementation, dtype=jnp.int32)
  np.testing.assert_array_equal(np.asarray(y), exact(x, w))


@pytest.mark.parametrize('implementation', [*KERNELS, 'xla'])
@pytest.mark.parametrize(
  ('x_spec', 'w_spec', 'dtype'),
  [
    ('int8@token', 'int4@g128', 'bfloat16'),
    ('int4@g64', 'int4@g64', 'float32'),
    slow('int4@g128', 'int8@channel', 'float32'),
    slow('int8@token', 'int4z@g128', 'float32'),
    slow('int8@token', 'int3@g512', 'bfloat16'),
  ],
)
def test_scaled_sums_match_the_reference(implementation, dtype, x_spec, w_spec):
  x, w = operands(5, 556, 48, x_spec, w_spec)
  want = run(x, w, 'reference', dtype='float32')
  got = run(x, w, implementation, dtype=dtype)
  assert got.dtype == np.dtype(dtype)
  tol = 1e-5 if dtype == 'float32' else 1e-2
  chex.assert_trees_all_close(
    got.astype(jnp.float32), want, rtol=tol, atol=tol * 30
  )
  dense = lb.dequantize(x) @ lb.dequantize(lb.unpack(w))
  chex.assert_trees_all_close(want, dense, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize('implementation', [*KERNELS, 'xla'])
def test_zero_points_that_stay_packed_along_wide_rows(implementation):
  x, w = operands(2, 256, 256, 'int8@token', 'int4z@g128')
  dense = lb.dequantize(x) @ lb.dequantize(lb.unpack(w))
  got = run(x, w, implementation, dtype='float32')
  chex.assert_trees_all_close(got, dense, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize('implementation', [*KERNELS, 'xla'])
def test_per_channel_results_are_the_same_bits(implementation):
  x, w = operands(7, 700, 64, 'int8@token', 'int4@channel')
  want = run(x, w, 'reference')
  np.testing.assert_array_equal(run(x, w, implementation), want)


@pytest.mark.parametrize('implementation', [*KERNELS, 'xla', 'reference'])
def test_two_stage_weights(implementation):
  x, q = operands(4, 384, 64, 'int8@token', 'int4f@g128')
  w = op.two_stage(q)
  ints = np.rint(np.asarray(lb.dequantize(lb.unpack(w.q))))
  assert np.abs(ints).max() == 127
  got = run(x, w, implementation, dtype=jnp.int32)
  np.testing.assert_array_equal(
    np.asarray(got), np.asarray(x.codes, np.int64) @ ints.astype(np.int64)
  )
  scaled = run(x, w, implementation)
  chex.assert_trees_all_close(
    scaled, lb.dequantize(x) @ api.dense(w), rtol=1e-4, atol=1e-3
  )


@pytest.mark.parametrize('implementation', [*KERNELS, 'xla', 'reference'])
@pytest.mark.parametrize('outliers', [300, slow(96)])
def test_mixed_precision_in_one_call(implementation, outliers):
  x4, w4 = operands(6, 256, 64, 'int4@token', 'int4@channel')
  x8, w8 = operands(6, outliers, 64, 'int8@token', 'int8@channel', seed=1)
  got = run((x4, x8), (w4, w8), implementation)
  want = sum(
    lb.dequantize(x) @ lb.dequantize(lb.unpack(w))
    for x, w in ((x4, w4), (x8, w8))
  )
  chex.assert_trees_all_close(got, want, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(
  ('k', 'x_spec', 'w_spec'),
  [(1024, 'int4@g128', 'int4@g128'), (768, 'int8@token', 'int4z@g64')],
)
def test_blocks_of_all_axes_on_a_tpu(k, x_spec, w_spec):
  x, w = operands(70, k, 300, x_spec, w_spec)
  tiles = tuned.Tiles(32, 128, 1)  # 3 by 3 blocks of the output, K in steps.
  got = run(x, w, 'tpu', tiles=tiles)
  chex.assert_trees_all_close(got, run(x, w, 'xla'), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize('bulk', [300, slow(896)])
def test_parts_whose_last_chunks_are_not_whole(bulk):
  xs, ws = zip(
    operands(3, bulk, 32, 'int4@g32', 'int4@g32'),
    operands(3, 44, 32, 'int8@token', 'int8@channel', seed=1),
  )
  got = run(xs, ws, 'tpu')
  chex.assert_trees_all_close(
    got, run(xs, ws, 'reference'), rtol=1e-5, atol=1e-4
  )


@pytest.mark.parametrize('implementation', KERNELS)
def test_largest_codes_and_zero_groups(implementation):
  x = lb.quantize(jnp.full((2, 512), -1.0), 'int8@token')
  w = jnp.ones((512, 16)).at[256:].set(0.0)
  q = lb.pack(lb.quantize(w, 'int8@channel', axis=-2))
  got = run(x, q, implementation, dtype=jnp.int32)
  assert (np.asarray(got) == -127 * 127 * 256).all()
  grouped = lb.pack(lb.quantize(w, 'int4@g256', axis=-2))
  chex.assert_trees_all_close(
    run(x, grouped, implementation), jnp.full((2, 16), -256.0), rtol=1e-5
  )


@hypothesis.given(
  st.integers(1, 40),
  st.integers(1, 1200),
  st.integers(1, 5).map(lambda n: 16 * n),
  st.sampled_from(['int8@channel', 'int4@channel', 'int5@g64', 'ternary']),
  st.sampled_from([*KERNELS, 'xla']),
)
@hypothesis.settings(deadline=None, max_examples=3)
def test_random_shapes(m, k, n, w_spec, implementation):
  x, w = operands(m, k, n, 'int8@token', w_spec, seed=k)
  if api.explain(x, w)[implementation]:
    implementation = 'xla'
  got = run(x, w, implementation)
  want = lb.dequantize(x) @ lb.dequantize(lb.unpack(w))
  chex.assert_trees_all_close(got, want, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize('two_stage', [False, True])
def test_gradient_is_that_of_the_dense_operator(two_stage):
  _, w = operands(1, 256, 32, 'int8@token', 'int4@g64')
  w = op.two_stage(w) if two_stage else w
  x = jax.random.normal(jax.random.key(0), (2, 3, 256))
  loss = lambda f: lambda x: jnp.sum(jnp.sin(f(x)))
  got = jax.grad(loss(lambda x: op.quantized_matmul(x, w)))(x)
  y = op.quantized_matmul(x, w)
  want = jnp.cos(y) @ api.dense(w).T
  chex.assert_trees_all_close(got, want, rtol=1e-5, atol=1e-5)
  close = lb.dequantize(lb.quantize(x, 'int8@token')) @ api.dense(w)
  chex.assert_trees_all_close(y, close, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize('w_spec', ['int8@channel', 'int4@g128'])
def test_a_tpu_quantizes_rows_as_quantize_does(w_spec, dtype):
  """Bit for bit; 37 rows leave a part of the last tile empty."""
  _, w = operands(1, 384, 256, 'int8@token', w_spec)
  x = jax.random.normal(jax.random.key(1), (37, 384)).astype(dtype)
  x = x.at[0].set(0).at[1, 0].set(jnp.nan).at[2, 1].set(jnp.inf)
  kernel = dict(implementation='tpu', interpret=True)
  got = op.quantized_matmul(x, w, **kernel)
  want = op.int_matmul(lb.quantize(x, 'int8@token'), w, dtype=dtype, **kernel)
  assert got.dtype == dtype
  got, want = (np.asarray(y, np.float32) for y in (got, want))
  np.testing.assert_array_equal(got, want)
  assert np.isnan(got[1:3]).all()


def test_the_choice_falls_at_lowering():
  x, w = operands(16, 512, 128, 'int8@token', 'int4@g128')
  lower = lambda name: targets.lower(op.int_matmul, targets.NAMED[name], x, w)
  tpu, cuda = (lower(name).as_text() for name in ('v5e', 'h100'))
  cpu = jax.jit(op.int_matmul).lower(x, w).as_text()
  assert 'tpu_custom_call' in tpu
  assert 'triton' in cuda
  assert 'custom_call' not in cpu


def test_errors_say_what_and_why():
  x, w = operands(4, 512, 32, 'int8@token', 'int4@channel')
  with pytest.raises(TypeError, match='quantized_matmul'):
    op.int_matmul(jnp.ones((4, 512)), w)
  with pytest.raises(ValueError, match='symmetric integers'):
    op.int_matmul(lb.quantize(jnp.ones((4, 512)), 'e4m3@token'), w)
  with pytest.raises(ValueError, match='no integer format'):
    op.int_matmul(x, lb.quantize(jnp.ones((512, 32)), 'nf4', axis=-2))
  with pytest.raises(ValueError, match='do not fit int8'):
    op.int_matmul(x, lb.quantize(jnp.ones((512, 32)), 'int8z', axis=-2))
  with pytest.raises(ValueError, match='must match'):
    op.int_matmul(lb.quantize(jnp.ones((4, 300)), 'int8@token'), w)
  x64, w128 = operands(4, 512, 32, 'int4@g64', 'int4@g128')
  with pytest.raises(ValueError, match='must be equal'):
    op.int_matmul(x64, w128)
  with pytest.raises(ValueError, match='equally many parts'):
    op.int_matmul((x, x), w)
  with pytest.raises(ValueError, match='bare sums'):
    op.int_matmul((x, x), (w, w), dtype=jnp.int32)
  _, odd = operands(4, 512, 30, 'int8@token', 'int4@channel')
  with pytest.raises(ValueError, match='not a multiple of 16'):
    run(x, odd, 'gpu')
  with pytest.raises(ValueError, match='units of 16'):
    run(*operands(4, 512, 32, 'int4@g16', 'int4@g16'), 'tpu')
  with pytest.raises(ValueError, match='at most 7 bits'):
    op.two_stage(lb.quantize(jnp.ones((512, 32)), 'int8@g128', axis=-2))
  short = lb.PackedQTensor(w.words[:-1], w.scale, None, w.size, w.spec, w.axis)
  with pytest.raises(ValueError, match='take 256 bytes'):
    op.int_matmul(x, short)


def test_a_unit_never_crosses_a_group_or_a_lane():
  x, w = operands(1, 768, 16, 'int8@token', 'int2@g96')
  (part,) = api.parts_lib.take_apart(x, w)
  assert pieces.unit_of(part) == 32
  assert pallas_tpu.unit_of(part) == 32
  assert not pieces.reasons(part)
