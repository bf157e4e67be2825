"""One-pass quantization and rotation exist on machines that are not here."""

import functools

import jax
import jax.numpy as jnp
import pytest
import targets

from lowbit.kernels import hadamard as rotation
from lowbit.kernels import quantize_rows as rounding

MARKS = {'tpu': 'tpu_custom_call', 'cuda': 'triton'}


def check(target, function, m, k):
  target = targets.NAMED[target]
  x = jax.ShapeDtypeStruct((m, k), jnp.bfloat16)
  program = targets.compile(function, target, x)
  assert MARKS[target.platform] in program.as_text()


def rounded(target, m, k, spec):
  check(target, functools.partial(rounding.quantize_rows, spec=spec), m, k)


def rotated(target, m, k, block, spec):
  if spec is None:
    function = functools.partial(rotation.hadamard, block=block)
  else:
    function = functools.partial(
      rotation.hadamard_quantize, block=block, spec=spec
    )
  check(target, function, m, k)


@pytest.mark.parametrize('target', ['v5e', 'h100'])
def test_both(target):
  rounded(target, 8, 1024, 'int4@token')
  rotated(target, 8, 1024, 1024, 'int8@token')


@pytest.mark.slow
@pytest.mark.parametrize('target', targets.NAMED)
@pytest.mark.parametrize('m', [1, 512])
@pytest.mark.parametrize('spec', ['int8@token', 'int4@token', 'int8@g128'])
def test_rounding(target, m, spec):
  rounded(target, m, 4096, spec)


@pytest.mark.slow
@pytest.mark.parametrize('target', targets.NAMED)
@pytest.mark.parametrize('m', [1, 512])
@pytest.mark.parametrize(('k', 'block'), [(4096, 4096), (14336, 1024)])
@pytest.mark.parametrize('spec', [None, 'int4@token', 'int8@token'])
def test_rotation(target, m, k, block, spec):
  rotated(target, m, k, block, spec)
