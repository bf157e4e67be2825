"""Expert products exist on machines that are not here."""

import jax
import jax.numpy as jnp
import pytest
import targets

import lowbit as lb
from lowbit.kernels import grouped_matmul as op

MARKS = {'tpu': 'tpu_custom_call', 'cuda': 'triton'}


def check(target, t, spec, k=1024, n=512, experts=8):
  target = targets.NAMED[target]
  pack = lambda w: lb.pack(lb.quantize(w, spec, axis=-2))
  w = jax.ShapeDtypeStruct((experts, k, n), jnp.float32)
  x = jax.ShapeDtypeStruct((t, k), jnp.bfloat16)
  sizes = jax.ShapeDtypeStruct((experts,), jnp.int32)
  program = targets.compile(
    op.grouped_matmul, target, x, jax.eval_shape(pack, w), sizes
  )
  assert MARKS[target.platform] in program.as_text()


@pytest.mark.parametrize('target', ['v5e', 'h100'])
def test_two_bit_experts(target):
  check(target, 64, 'int2@channel')


@pytest.mark.slow
@pytest.mark.parametrize('target', targets.NAMED)
@pytest.mark.parametrize('t', [8, 1024])
@pytest.mark.parametrize(
  'spec', ['int8@channel', 'int4@g128', 'int3@channel', 'int2z@g64', 'mxfp4']
)
def test_grid(target, t, spec):
  check(target, t, spec)
