"""Sweeps: formats as data, the values of the static path."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lowbit as lb
from lowbit.quantize import grid

NAMES = [
  n for n in lb.formats.names() if n != 'fp32' and lb.formats.get(n).grid
]


def hard_input():
  x = jax.random.normal(jax.random.key(0), (16, 40))
  x = x.at[0, :16].set(0).at[1].multiply(1e-30).at[2].multiply(1e30)
  x = x.at[3].set(jnp.arange(40.0) / 2 - 8)  # Ties.
  return x.at[4, 1].set(jnp.nan).at[5, 2].set(jnp.inf).at[6, :8].set(-0.0)


TAILS = (
  '@channel',
  '@t8x8',
  '@tensor:unit',
  '@b32:e8m0',
  '@b32:e8m0-even',
  '@b32:e8m0-rceil',
  '@g16:bf16',
  '@b16:(e4m3@tensor)',
)
FAST = (('@g16', 'float32'), ('@b32:e8m0-even', 'bfloat16'))
ALL = [(t, d) for t in ('@g16', *TAILS) for d in ('float32', 'bfloat16')]


def bits(y):
  y = np.asarray(y).astype(np.float32)
  return np.where(np.isnan(y), np.float32(np.nan), y).view(np.uint32)


@pytest.mark.parametrize(
  ('tail', 'dtype'),
  [pytest.param(*p, marks=() if p in FAST else pytest.mark.slow) for p in ALL],
)
def test_every_grid_format_as_data(tail, dtype):
  x = hard_input().astype(dtype)
  got = lb.quantize_grid(x, [name + tail for name in NAMES])
  assert got.dtype == x.dtype
  with jax.disable_jit():  # Faster than a program for each.
    want = [lb.fake_quantize(x, name + tail) for name in NAMES]
  for name, a, b in zip(NAMES, got, want, strict=True):
    np.testing.assert_array_equal(bits(a), bits(b), err_msg=name)


def test_every_kind_is_there():
  assert {'int4', 'int4f', 'ternary', 'e3m0', 'e4m3fnuz', 'bf16'} <= set(NAMES)
  assert not {'uint4', 'nf4', 'posit8_1', 'int1'} & set(NAMES)


def test_other_formats_do_not_compile_again():
  x = jax.random.normal(jax.random.key(0), (8, 48))
  lb.quantize_grid(x, ['int4@g16', 'e2m1@g16', 'int8@g16'])
  count = grid._sweep._cache_size()
  lb.quantize_grid(x, ['e4m3@g16', 'int3f@g16', 'e5m2@g16'])
  assert grid._sweep._cache_size() == count


def test_under_jit_and_over_a_contraction_axis():
  x = hard_input()
  names = ['int4@g8', 'e2m1@g8']
  got = jax.jit(lambda x: lb.quantize_grid(x, names, axis=0))(x)
  for name, y in zip(names, got):
    np.testing.assert_array_equal(y, lb.fake_quantize(x, name, axis=0))


@pytest.mark.parametrize(
  ('specs', 'message'),
  [
    ([], 'empty'),
    (['nf4@g16'], 'not a float grid'),
    (['uint4@g16'], 'int4z'),
    (['int4z@g16'], 'not a float grid'),
    (['e4m3_overflow@g16'], 'saturates'),
    (['int4@g16', 'int4@g32'], 'share their block'),
    (['int4@g16', 'int4@g16:e8m0'], 'share their block and scale'),
    (['int4@g16~floor'], 'to nearest'),
    (['int4@g16', 'int8!@g16'], 'share'),
  ],
)
def test_what_is_no_sweep(specs, message):
  with pytest.raises(ValueError, match=message):
    lb.quantize_grid(jnp.ones((2, 32)), specs)


def test_bad_arrays():
  with pytest.raises(TypeError, match='floating-point'):
    lb.quantize_grid(jnp.arange(4), ['int4@tensor'])
  with pytest.raises(ValueError, match='no padding'):
    lb.quantize_grid(jnp.ones((2, 33)), ['int4!@g16'])
  assert lb.quantize_grid(jnp.ones((0, 4)), ['int4@g2']).shape == (1, 0, 4)
  assert lb.quantize_grid(jnp.float32(3), ['int8@tensor']).shape == (1,)
