"""Every row meets the weights of its expert, and no others."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lowbit as lb
from lowbit.kernels import grouped_matmul as op
from lowbit.kernels.grouped_matmul import pallas_tpu, tuned, visits

KERNELS = ['tpu', 'gpu']
SIZES = [[5, 0, 17, 1], [0, 0, 0, 23], [6, 6, 6, 5], [3, 0, 1, 0]]


def operands(t, k, n, spec, dtype='float32', experts=4):
  keys = jax.random.split(jax.random.key(0), 2)
  x = jax.random.normal(keys[0], (t, k), dtype)
  w = jax.random.normal(keys[1], (experts, k, n))
  return x, lb.quantize(w, spec, axis=-2)


def run(x, w, sizes, implementation):
  return op.grouped_matmul(
    x,
    w,
    jnp.asarray(sizes, jnp.int32),
    implementation=implementation,
    interpret=implementation in KERNELS,
  )


def row_by_row(x, q, sizes):
  dense = np.asarray(lb.dequantize(q), np.float64)
  y = np.zeros((x.shape[0], dense.shape[2]))
  for t, e in enumerate(np.repeat(np.arange(4), sizes)):
    y[t] = np.asarray(x[t], np.float64) @ dense[e]
  return y


@pytest.mark.parametrize('implementation', [*KERNELS, 'xla', 'reference'])
@pytest.mark.parametrize('sizes', SIZES)
def test_any_grouping(implementation, sizes):
  x, q = operands(23, 256, 32, 'int2@channel')
  y = run(x, lb.pack(q), sizes, implementation)
  np.testing.assert_allclose(y, row_by_row(x, q, sizes), atol=1e-3)


@pytest.mark.parametrize('implementation', [*KERNELS, 'xla'])
@pytest.mark.parametrize(
  ('k', 'n', 'spec'),
  [
    (512, 16, 'int4@g128'),
    (256, 256, 'int3z@g64'),  # Zero points stay packed along wide rows.
    pytest.param(256, 48, 'int3z@g64', marks=pytest.mark.slow),
    pytest.param(256, 16, 'int8@channel', marks=pytest.mark.slow),
    pytest.param(256, 16, 'e2m1@b32:e8m0', marks=pytest.mark.slow),
  ],
)
def test_formats(implementation, k, n, spec):
  x, q = operands(9, k, n, spec, 'bfloat16')
  sizes = [2, 3, 0, 4]
  y = run(x, lb.pack(q), sizes, implementation)
  assert y.dtype == jnp.bfloat16
  want = row_by_row(x, q, sizes)
  np.testing.assert_allclose(
    y.astype(jnp.float32), want, rtol=2e-2, atol=0.02 * k**0.5
  )


@pytest.mark.parametrize('implementation', ['tpu', None])
def test_ragged_depth(implementation):
  x, q = operands(7, 300, 12, 'int4@channel')
  y = run(x, lb.pack(q), [3, 3, 0, 1], implementation)
  np.testing.assert_allclose(y, row_by_row(x, q, [3, 3, 0, 1]), atol=1e-4)
  with pytest.raises(ValueError, match='chunks of 256'):
    run(x, lb.pack(q), [3, 3, 0, 1], 'gpu')


@pytest.mark.parametrize('sizes', [[20, 0, 13, 30], [0, 16, 32, 0], [0] * 4])
def test_tiles_that_experts_share_on_a_tpu(sizes):
  x, q = operands(70, 256, 200, 'int4@g32')
  got = pallas_tpu.grouped_matmul(
    x.at[-1].set(jnp.nan),  # Has no expert.
    lb.pack(q),
    jnp.asarray(sizes, jnp.int32),
    tiles=tuned.Tiles(16, 128),
    interpret=True,
  )
  np.testing.assert_allclose(got, row_by_row(x, q, sizes), atol=1e-3)


@pytest.mark.parametrize('sizes', [*SIZES, [0, 0, 0, 0]])
@pytest.mark.parametrize('block', [1, 4, 16, 32])
def test_visits_own_every_row_once(sizes, block):
  rows = 23
  found = visits.of_groups(rows, jnp.asarray(sizes, jnp.int32), block)
  tile, expert, start, end = map(np.asarray, found)
  owner = np.full(rows, -1)
  for t, e, a, b in zip(tile, expert, start, end):
    assert 0 <= t < -(-rows // block)
    assert 0 <= e < 4
    for row in range(a, b):
      assert owner[row] == -1
      assert row // block == t
      owner[row] = e
  ids = np.repeat(np.arange(4), sizes)
  np.testing.assert_array_equal(owner[: len(ids)], ids)
  assert (owner[len(ids) :] == -1).all()
  assert (np.diff(tile) >= 0).all()
  assert (np.diff(expert) >= 0).all()
  assert set(tile) == set(range(-(-rows // block)))


def test_gradient_is_that_of_the_dense_experts():
  x, q = operands(6, 256, 16, 'int4@channel')
  sizes = jnp.asarray([2, 1, 0, 3], jnp.int32)
  f = lambda x: jnp.sum(jnp.sin(op.grouped_matmul(x, lb.pack(q), sizes)))
  dense = lb.dequantize(q)[np.repeat(np.arange(4), np.asarray(sizes))]
  g = lambda x: jnp.sum(jnp.sin(jnp.einsum('tk,tkn->tn', x, dense)))
  chex.assert_trees_all_close(jax.grad(f)(x), jax.grad(g)(x), atol=1e-3)


def test_errors_say_what_and_why():
  x, q = operands(6, 256, 16, 'int4@channel')
  sizes = jnp.asarray([2, 1, 0, 3], jnp.int32)
  with pytest.raises(TypeError, match='quantized tensor'):
    op.grouped_matmul(x, jnp.ones((4, 256, 16)), sizes)
  with pytest.raises(TypeError, match='integers'):
    op.grouped_matmul(x, q, jnp.ones(4))
  with pytest.raises(ValueError, match='one size for each'):
    op.grouped_matmul(x, q, sizes[:3])
  with pytest.raises(ValueError, match=r'must be \[T, 256\]'):
    op.grouped_matmul(x[:, :100], q, sizes)
  with pytest.raises(ValueError, match='axis -2'):
    op.grouped_matmul(x, lb.quantize(jnp.ones((4, 256, 16)), 'int4'), sizes)
