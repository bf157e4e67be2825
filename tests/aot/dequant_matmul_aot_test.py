"""The kernels exist on machines that are not here."""

import jax
import jax.numpy as jnp
import pytest
import targets

import lowbit as lb
from lowbit import kernels

MARKS = {'tpu': 'tpu_custom_call', 'cuda': 'triton'}


def weights(k, n, spec):
  pack = lambda w: lb.pack(lb.quantize(w, spec, axis=0))
  return jax.eval_shape(pack, jax.ShapeDtypeStruct((k, n), jnp.float32))


@pytest.mark.parametrize('target', targets.NAMED)
@pytest.mark.parametrize('spec', ['int4@channel', 'int8@channel'])
def test_compiles_to_the_kernel(target, spec):
  target = targets.NAMED[target]
  x = jax.ShapeDtypeStruct((8, 1024), jnp.bfloat16)
  w = weights(1024, 512, spec)
  program = targets.compile(kernels.dequant_matmul, target, x, w)
  assert MARKS[target.platform] in program.as_text()
