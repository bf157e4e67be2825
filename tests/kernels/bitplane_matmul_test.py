"""Sums of binary products are the integer product, for every coding."""

import hypothesis
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st

from lowbit.kernels import bitplane_matmul as op
from lowbit.kernels.bitplane_matmul import pallas_tpu, planes, reference, tuned

KERNELS = ['tpu', 'gpu']
CODINGS = {
  'u1': op.Coding.unsigned(1),
  'u2': op.Coding.unsigned(2),
  'i4': op.Coding.signed(4),
  'i8': op.Coding.signed(8),
  'z3': op.Coding.unsigned(3, zero=5),
  'five': op.Coding.unsigned(3, zero=2),  # ABQ-LLM's -2..2.
  'b1': op.Coding.bipolar(1),
  'b2': op.Coding.bipolar(2),
}


def codes(shape, coding, seed):
  rng = np.random.default_rng(seed)
  return rng.integers(0, 2**coding.bits, shape)


def values(fields, coding):
  bits = [(fields >> i) & 1 for i in range(coding.bits)]
  return sum(c * b for c, b in zip(coding.weights, bits)) + coding.offset


def product(m, k, n, x_coding, w_coding, implementation, seed=0):
  a, b = codes((m, k), x_coding, seed), codes((k, n), w_coding, seed + 1)
  got = op.bitplane_matmul(
    op.pack_planes(jnp.asarray(a), x_coding),
    op.pack_planes(jnp.asarray(b), w_coding, axis=-2),
    implementation=implementation,
    interpret=implementation in KERNELS,
  )
  want = values(a, x_coding) @ values(b, w_coding)
  return np.asarray(got), want


@pytest.mark.parametrize('implementation', [*KERNELS, 'xla', 'reference'])
@pytest.mark.parametrize(
  ('x_coding', 'w_coding'),
  [
    ('u2', 'b1'),
    ('z3', 'five'),
    pytest.param('b1', 'b1', marks=pytest.mark.slow),
    pytest.param('i4', 'i4', marks=pytest.mark.slow),
    pytest.param('u2', 'b2', marks=pytest.mark.slow),
  ],
)
def test_every_coding(implementation, x_coding, w_coding):
  got, want = product(
    3, 70, 48, CODINGS[x_coding], CODINGS[w_coding], implementation
  )
  np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize('implementation', [*KERNELS, 'xla'])
@pytest.mark.parametrize(('m', 'k'), [(1, 1), (17, 33)])
def test_words_across_boundaries(implementation, m, k):
  got, want = product(m, k, 16, CODINGS['i8'], CODINGS['five'], implementation)
  np.testing.assert_array_equal(got, want)


def test_blocks_of_all_axes_on_a_tpu():
  a, b = codes((19, 500), CODINGS['u2'], 0), codes((500, 200), CODINGS['b1'], 1)
  got = pallas_tpu.bitplane_matmul(
    op.pack_planes(jnp.asarray(a), CODINGS['u2']),
    op.pack_planes(jnp.asarray(b), CODINGS['b1'], axis=-2),
    tiles=tuned.Tiles(8, 128, 8),  # 3 by 2 blocks, K in 2 steps.
    interpret=True,
  )
  want = values(a, CODINGS['u2']) @ values(b, CODINGS['b1'])
  np.testing.assert_array_equal(np.asarray(got), want)


@hypothesis.given(
  st.integers(1, 9),
  st.integers(1, 100),
  st.sampled_from(sorted(CODINGS)),
  st.sampled_from(sorted(CODINGS)),
)
@hypothesis.settings(deadline=None, max_examples=4)
def test_random_shapes(m, k, x_coding, w_coding):
  got, want = product(m, k, 16, CODINGS[x_coding], CODINGS[w_coding], 'xla', k)
  np.testing.assert_array_equal(got, want)


def test_the_table_of_identities():
  rng = np.random.default_rng(0)
  a, w = rng.integers(0, 2, (2, 1, 50))
  pop = lambda v: int(v.sum())
  both = [
    op.pack_planes(jnp.asarray(a), CODINGS['b1']),
    op.pack_planes(jnp.asarray(w.T), CODINGS['b1'], axis=-2),
  ]
  got = int(op.bitplane_matmul(*both)[0, 0])
  assert got == 50 - 2 * pop(a ^ w)
  both[0] = op.pack_planes(jnp.asarray(a), CODINGS['u1'])
  got = int(op.bitplane_matmul(*both)[0, 0])
  assert got == 2 * pop(a & w) - pop(a)


def test_planes_come_back_and_count_bits():
  fields = codes((5, 100), CODINGS['i4'], 0)
  p = op.pack_planes(jnp.asarray(fields), CODINGS['i4'])
  np.testing.assert_array_equal(
    planes.unpack_planes(p), values(fields, CODINGS['i4'])
  )
  np.testing.assert_array_equal(
    CODINGS['i4'].values(jnp.asarray(fields)), values(fields, CODINGS['i4'])
  )
  assert p.words.shape == (4, 5, 4)
  assert reference.count_operations(2, 2, 64)['popcounts'] == 8


def test_errors_say_what_and_why():
  x = op.pack_planes(jnp.zeros((2, 64), jnp.uint8), CODINGS['u2'])
  w = op.pack_planes(jnp.zeros((64, 8), jnp.uint8), CODINGS['b1'], axis=-2)
  with pytest.raises(TypeError, match='pack_planes'):
    op.bitplane_matmul(jnp.zeros((2, 64)), w)
  with pytest.raises(ValueError, match='axis -2'):
    op.bitplane_matmul(x, x)
  short = op.pack_planes(jnp.zeros((32, 8), jnp.uint8), CODINGS['b1'], axis=-2)
  with pytest.raises(ValueError, match='must match'):
    op.bitplane_matmul(x, short)
  with pytest.raises(ValueError, match='not a multiple of 16'):
    op.bitplane_matmul(x, w, implementation='gpu', interpret=True)
  with pytest.raises(TypeError, match='must be integers'):
    op.pack_planes(jnp.zeros((2, 64)), CODINGS['u2'])
  with pytest.raises(ValueError, match='must be a matrix'):
    op.pack_planes(jnp.zeros((2,), jnp.uint8), CODINGS['u2'])
