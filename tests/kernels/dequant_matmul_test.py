import chex
import jax
import jax.numpy as jnp
import pytest

import lowbit as lb
from lowbit import kernels
from lowbit.kernels.dequant_matmul import reference

RUNS = {
  'xla': {'implementation': 'xla'},
  'tpu': {'implementation': 'tpu', 'interpret': True},
  'gpu': {'implementation': 'gpu', 'interpret': True},
}
# A part of the largest output: rounding of x W in float32, and to bfloat16.
TOLERANCE = {'float32': 1e-5, 'bfloat16': 8e-3}


def weights(k, n, spec, seed=0):
  w = jax.random.normal(jax.random.key(seed), (k, n))
  return lb.pack(lb.quantize(w, spec, axis=0))


def inputs(m, k, dtype='float32', seed=1):
  return jax.random.normal(jax.random.key(seed), (m, k)).astype(dtype)


def check(x, w, **run):
  want = reference.dequant_matmul(x.astype(jnp.float32), w)
  got = kernels.dequant_matmul(x, w, **run)
  assert got.dtype == x.dtype
  limit = TOLERANCE[x.dtype.name] * float(jnp.abs(want).max())
  chex.assert_trees_all_close(got.astype(jnp.float32), want, rtol=0, atol=limit)


@pytest.mark.parametrize('run', RUNS)
@pytest.mark.parametrize('spec', ['int4@channel', 'int8@channel'])
@pytest.mark.parametrize('dtype', TOLERANCE)
def test_matches_the_reference(run, spec, dtype):
  check(inputs(3, 600, dtype), weights(600, 200, spec), **RUNS[run])
