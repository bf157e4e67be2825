"""int_matmul exists on machines that are not here."""

import functools

import jax
import jax.numpy as jnp
import pytest
import targets

import lowbit as lb
from lowbit.kernels import int_matmul as op

MARKS = {'tpu': 'tpu_custom_call', 'cuda': 'triton'}


def shapes(m, k, n, x_spec, w_spec, two_stage=False):
  """Abstract (x, w) of a product."""
  f32 = lambda *shape: jax.ShapeDtypeStruct(shape, jnp.float32)
  x = jax.eval_shape(lambda x: lb.quantize(x, x_spec), f32(m, k))

  def weights(w):
    q = lb.pack(lb.quantize(w, w_spec, axis=-2))
    return op.two_stage(q) if two_stage else q

  return x, jax.eval_shape(weights, f32(k, n))


def check(target, x, w):
  target = targets.NAMED[target]
  function = functools.partial(op.int_matmul, dtype=jnp.bfloat16)
  program = targets.compile(function, target, x, w)
  assert MARKS[target.platform] in program.as_text()


@pytest.mark.parametrize('target', ['v5e', 'h100'])
def test_mixed_precision(target):
  x4, w4 = shapes(16, 1024, 512, 'int4@g128', 'int4@g128')
  x8, w8 = shapes(16, 128, 512, 'int8@token', 'int8@channel')
  check(target, (x4, x8), (w4, w8))


FAST = [('v5e', 'int4@g128'), ('v6e', 'int4@channel'), ('h100', 'int4@g128')]


@pytest.mark.parametrize(('target', 'w_spec'), FAST)
def test_decode(target, w_spec):
  check(target, *shapes(8, 1024, 512, 'int8@token', w_spec))


GRID = [
  ('int8@token', 'int8@channel', False),
  ('int8@token', 'int4@channel', False),
  ('int8@token', 'int4@g64', False),
  ('int8@token', 'int4z@g128', False),
  ('int8@token', 'int4f@g128', True),
  ('int4@g128', 'int4@g128', False),
  ('int8@token', 'int3@channel', False),
  ('int8@token', 'int6f@channel', False),
  ('int8@token', 'int2@g32', False),
  ('int8@token', 'int1@channel', False),
  ('int8@token', 'ternary@tensor', False),
]


@pytest.mark.slow
@pytest.mark.parametrize('target', targets.NAMED)
@pytest.mark.parametrize(('x_spec', 'w_spec', 'two_stage'), GRID)
@pytest.mark.parametrize('m', [1, 512])
def test_grid(target, x_spec, w_spec, two_stage, m):
  k = 2560 if w_spec.startswith('ternary') else 2048
  check(target, *shapes(m, k, 512, x_spec, w_spec, two_stage))
