"""Bit planes are multiplied on machines that are not here."""

import jax
import jax.numpy as jnp
import pytest
import targets

from lowbit.kernels import bitplane_matmul as op

MARKS = {'tpu': 'tpu_custom_call', 'cuda': 'triton'}


def check(target, m, x_coding, w_coding):
  target = targets.NAMED[target]
  u32 = lambda *shape: jax.ShapeDtypeStruct(shape, jnp.uint32)
  x = op.Planes(u32(x_coding.bits, m, 32), x_coding, 1024, -1)
  w = op.Planes(u32(w_coding.bits, 32, 512), w_coding, 1024, -2)
  program = targets.compile(op.bitplane_matmul, target, x, w)
  assert MARKS[target.platform] in program.as_text()


@pytest.mark.parametrize('target', ['v5e', 'h100'])
def test_w2a4(target):
  check(target, 8, op.Coding.signed(4), op.Coding.bipolar(2))


@pytest.mark.slow
@pytest.mark.parametrize('target', targets.NAMED)
@pytest.mark.parametrize('m', [1, 128])
@pytest.mark.parametrize(('a', 'w'), [(1, 1), (2, 2), (8, 2), (4, 4), (8, 3)])
def test_grid(target, m, a, w):
  check(target, m, op.Coding.unsigned(a), op.Coding.signed(w))
