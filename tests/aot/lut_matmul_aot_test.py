"""Lookups exist on machines that are not here."""

import functools

import jax
import jax.numpy as jnp
import pytest
import targets

import lowbit as lb
from lowbit.kernels import lut_matmul as op

MARKS = {'tpu': 'tpu_custom_call', 'cuda': 'triton'}
UNIFORM = tuple(float((w - 2) * a) for w in range(4) for a in range(4))
CURVED = tuple(v * abs(v) / 7 + 0.1 for v in UNIFORM)


def check(target, function, *args):
  target = targets.NAMED[target]
  program = targets.compile(function, target, *args)
  assert MARKS[target.platform] in program.as_text()


def look_up(target, m, k, n, spec, quantized):
  weight = lambda w: op.lut_weight(lb.quantize(w, spec, axis=-2))
  w = jax.eval_shape(weight, jax.ShapeDtypeStruct((k, n), jnp.float32))
  x = jax.ShapeDtypeStruct((m, k), jnp.bfloat16)
  function = functools.partial(op.lut_matmul, quantize_tables=quantized)
  check(target, function, x, w)


def two_bit(target, table, m=8):
  x = jax.ShapeDtypeStruct((m, 1024), jnp.uint8)
  words = jax.ShapeDtypeStruct((256, 512), jnp.uint8)
  check(target, lambda x, w: op.lut_gemm_2bit(x, w, table), x, words)


@pytest.mark.parametrize('target', ['v5e', 'h100'])
def test_lookups(target):
  look_up(target, 1, 512, 256, 'int2@g64', True)
  two_bit(target, UNIFORM)


@pytest.mark.slow
@pytest.mark.parametrize('target', targets.NAMED)
@pytest.mark.parametrize('spec', ['int1@channel', 'int2@g128', 'int4z@g64'])
@pytest.mark.parametrize('quantized', [False, True])
@pytest.mark.parametrize('m', [1, 64])
def test_grid(target, spec, quantized, m):
  look_up(target, m, 1024, 512, spec, quantized)


@pytest.mark.slow
@pytest.mark.parametrize('target', targets.NAMED)
@pytest.mark.parametrize('table', [UNIFORM, CURVED], ids=['int', 'float'])
def test_two_bit(target, table):
  two_bit(target, table, 64)
