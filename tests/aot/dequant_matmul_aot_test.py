"""dequant_matmul exists on machines that are not here."""

import jax
import jax.numpy as jnp
import pytest
import targets

import lowbit as lb
from lowbit import kernels
from lowbit.kernels.dequant_matmul import pallas_gpu, pallas_tpu, tuned

MARKS = {'tpu': 'tpu_custom_call', 'cuda': 'triton'}
SPECS = [
  'int8@channel',
  'int8z@g64',
  'mxfp8_e4m3',
  'posit8_1@channel',
  'int7@g128',
  'mxfp6_e2m3',
  'int5@g16',
  'int4@channel',
  'int4@g128',
  'int4z@g64',
  'nf4@g64',
  'mxfp4',
  'nvfp4',
  'int3@g64',
  'int3z@g32',
  'int2@g64',
  'int2z@channel',
  'ternary@channel',
  'int1@g128',
]
# A small, ragged K, and a step of decoding; the grid of all is slow.
FAST = ['int4@g128', 'int3z@g32', 'mxfp4', 'ternary@channel']


def weights(k, n, spec):
  pack = lambda w: lb.pack(lb.quantize(w, spec, axis=0))
  return jax.eval_shape(pack, jax.ShapeDtypeStruct((k, n), jnp.float32))


def compiled(target, m, k, n, spec, dtype=jnp.bfloat16):
  x, w = jax.ShapeDtypeStruct((m, k), dtype), weights(k, n, spec)
  program = targets.compile(kernels.dequant_matmul, targets.NAMED[target], x, w)
  assert MARKS[targets.NAMED[target].platform] in program.as_text()
  return program, targets.size((x, w)) + m * n * jnp.dtype(dtype).itemsize


@pytest.mark.parametrize('target', ['v5e', 'h100'])
@pytest.mark.parametrize('spec', FAST)
def test_compiles_to_the_kernel(target, spec):
  compiled(target, 1, 904, 512, spec)


@pytest.mark.parametrize('target', ['v5p', 'v6e', 'b200'])
def test_other_targets_compile_it_too(target):
  compiled(target, 8, 1024, 512, 'int4@g64')


@pytest.mark.parametrize('spec', ['int4@g128', 'int3z@g32', 'mxfp6_e2m3'])
@pytest.mark.parametrize('m', [1, 16])
def test_a_tpu_moves_little_more_than_it_must(spec, m):
  program, necessary = compiled('v5e', m, 4096, 4096, spec)
  assert program.cost_analysis()['bytes accessed'] <= 1.15 * necessary


@pytest.mark.slow
@pytest.mark.parametrize('target', targets.NAMED)
@pytest.mark.parametrize('spec', SPECS)
def test_the_grid_of_formats_and_shapes(target, spec):
  for m, k, n in [(1, 904, 200), (16, 4096, 4096), (512, 2048, 1024)]:
    for dtype in (jnp.bfloat16, jnp.float32):
      program, necessary = compiled(target, m, k, n, spec, dtype)
      # XLA lays out ragged arguments its own way, and copies them.
      if targets.NAMED[target].platform == 'tpu' and m == 16:
        moved = program.cost_analysis()['bytes accessed']
        assert moved <= 1.15 * necessary, (m, k, n, dtype)


@pytest.mark.slow
@pytest.mark.parametrize('target', targets.NAMED)
def test_the_grid_of_tiles(target):
  x = jax.ShapeDtypeStruct((256, 4096), jnp.bfloat16)
  w = weights(4096, 1024, 'int4@g128')
  if targets.NAMED[target].platform == 'tpu':
    tiles = [
      tuned.TpuTiles(m, n, k)
      for m in (16, 256)
      for n in (128, 512)
      for k in (1024, 4096)
    ]
    module = pallas_tpu
  else:
    tiles = [
      tuned.GpuTiles(m, n, split, warps)
      for m in (16, 64)
      for n in (64, 128)
      for split in (1, 4)
      for warps in (4, 8)
    ]
    module = pallas_gpu
  for tile in tiles:
    run = lambda x, w, tile=tile: module.dequant_matmul(
      x, kernels.operands.take_apart(w), out_dtype=x.dtype, tiles=tile
    )
    targets.compile(run, targets.NAMED[target], x, w)
