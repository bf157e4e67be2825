"""The kernel's transform is that of `transforms.hadamard`."""

import chex
import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st

import lowbit as lb
from lowbit import transforms
from lowbit.kernels import hadamard as op
from lowbit.kernels.hadamard import pallas_tpu

KERNELS = ['tpu', 'gpu']
CASES = [
  ('tpu', 3, 256, 256),
  ('tpu', 33, 256, 32),
  ('tpu', 2, 1536, 1536),
  ('tpu', 2, 1024, 512),
  ('gpu', 3, 256, 256),
  ('gpu', 2, 1536, 512),
]


@pytest.mark.parametrize(('implementation', 'm', 'k', 'block'), CASES)
def test_same_transform(implementation, m, k, block):
  x = jax.random.normal(jax.random.key(0), (m, k))
  got = op.hadamard(x, block, implementation=implementation, interpret=True)
  want = lb.transforms.hadamard.apply_hadamard(x, block)
  chex.assert_trees_all_close(got, want, atol=2e-6 * k**0.5)
  norm = lambda a: jnp.sum(a**2)
  chex.assert_trees_all_close(norm(got), norm(x), rtol=1e-5)


@pytest.mark.parametrize(('implementation', 'm', 'k', 'block'), CASES[::4])
@pytest.mark.parametrize('spec', ['int8@token', 'int4@token'])
def test_quantized_output(implementation, m, k, block, spec):
  # Whole numbers and a power of two leave no room for roundings to differ.
  x = jnp.round(8 * jax.random.normal(jax.random.key(1), (m, k)))
  q = op.hadamard_quantize(
    x, block, spec, implementation=implementation, interpret=True
  )
  want = lb.quantize(lb.transforms.hadamard.apply_hadamard(x, block), spec)
  chex.assert_trees_all_close(q.scale, want.scale, rtol=1e-5)
  off = np.asarray(q.codes, int) - np.asarray(want.codes, int)
  assert np.abs(off).max() <= 1  # A tie may fall to either side.
  assert np.mean(off != 0) < 5e-3
  assert q.spec == want.spec


def test_bfloat16_and_the_gradient():
  x = jax.random.normal(jax.random.key(0), (2, 3, 256))
  for kind in KERNELS:
    run = lambda x, kind=kind: op.hadamard(
      x, 256, implementation=kind, interpret=True
    )
    assert run(x.astype(jnp.bfloat16)).dtype == jnp.bfloat16
    got = jax.grad(lambda x, run=run: jnp.sum(jnp.sin(run(x))))(x)
    y = lb.transforms.hadamard.apply_hadamard(x)
    want = lb.transforms.hadamard.apply_hadamard(jnp.cos(y), transpose=True)
    chex.assert_trees_all_close(got, want, atol=1e-4)


@hypothesis.given(st.integers(1, 4), st.sampled_from([8, 12, 40, 96, 256]))
@hypothesis.settings(deadline=None, max_examples=3)
def test_any_width_is_taken(m, k):
  x = jax.random.normal(jax.random.key(k), (m, k))
  want = lb.transforms.hadamard.apply_hadamard(x)
  chex.assert_trees_all_close(op.hadamard(x), want, atol=1e-5)


def test_errors_say_what_and_why():
  with pytest.raises(ValueError, match='does not divide'):
    op.hadamard(jnp.ones((2, 256)), 100)
  with pytest.raises(TypeError, match='floating'):
    op.hadamard(jnp.ones((2, 256), jnp.int32))
  with pytest.raises(ValueError, match='int4@token or int8@token'):
    op.hadamard_quantize(jnp.ones((2, 256)), spec='int8@g64')
  with pytest.raises(ValueError, match='no power of two'):
    op.hadamard(jnp.ones((2, 12)), implementation='gpu', interpret=True)
  with pytest.raises(ValueError, match='128 lanes'):
    op.hadamard(jnp.ones((2, 12)), implementation='tpu', interpret=True)


@pytest.mark.parametrize('small', [2, 16, 128])
def test_the_matrix_that_a_tpu_makes(small):
  want = np.kron(
    np.eye(128 // small), transforms.hadamard.hadamard_matrix(small)
  )
  np.testing.assert_array_equal(pallas_tpu.core_of(small), want)
