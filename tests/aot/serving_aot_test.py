"""The served decoder, spread over slices of TPUs, compiles with its kernels."""

import jax
import jax.numpy as jnp
import pytest
import targets
from jax.sharding import NamedSharding

import lowbit as lb
from lowbit import operators
from lowbit.experiment import serving
from lowbit.models import decoder

SMALL = decoder.DecoderConfig(layers=2, dtype='bfloat16')  # As embedded.
LARGE = decoder.DecoderConfig(
  vocab=32768,
  width=4096,
  layers=2,
  heads=32,
  kv_heads=16,
  head_dim=128,
  hidden=12288,
  dtype='bfloat16',
)
POD = targets.Target('v5e pod', 'tpu', 'v5e:16x16')


def packed(config, spec):
  """Shapes of the params, every kernel packed."""
  tokens = jax.ShapeDtypeStruct((1, 2), jnp.int32)
  model = decoder.Decoder(config)
  params = jax.eval_shape(model.init, jax.random.key(0), tokens)['params']

  def pack(path, leaf):
    if path[-1].key != 'kernel':
      return leaf
    code = lambda w: operators.Coded(lb.quantize(w, spec, axis=0)).pack()
    return jax.eval_shape(code, leaf)

  return jax.tree_util.tree_map_with_path(pack, params)


def compiled(target, shape, config, spec, batch, time, length):
  mesh = target.mesh(shape, ('data', 'model'))
  params = packed(config, spec)
  step, specs = serving.sharded_forward(mesh, params, config)
  args = (
    params,
    jax.ShapeDtypeStruct((batch, time), jnp.int32),
    jax.eval_shape(lambda: serving.empty_cache(config, batch, length)),
    jax.ShapeDtypeStruct((), jnp.int32),
  )
  place = lambda a, s: jax.ShapeDtypeStruct(
    a.shape, a.dtype, sharding=NamedSharding(mesh, s)
  )
  return targets.compile(step, target, *jax.tree.map(place, args, specs))


def count(program):
  return program.as_text().count('custom_call_target="tpu_custom_call"')


@pytest.mark.parametrize('time', [1, 32], ids=['decode', 'prefill'])
def test_embedded_decoder_on_2x2(time):
  program = compiled(
    targets.NAMED['v5e'], (2, 2), SMALL, 'int4@g64', 4, time, 64
  )
  assert count(program) == 7 * SMALL.layers + 1


@pytest.mark.parametrize('time', [1, 128], ids=['decode', 'prefill'])
def test_large_decoder_on_16x16(time):
  program = compiled(POD, (16, 16), LARGE, 'int4@g128', 32, time, 1024)
  assert count(program) == 7 * LARGE.layers + 1


@pytest.mark.slow
@pytest.mark.parametrize(
  'spec', ['int8@channel', 'int3@g64', 'mxfp4', 'nf4@g64']
)
def test_other_formats_on_16x16(spec):
  program = compiled(POD, (16, 16), LARGE, spec, 32, 1, 1024)
  assert count(program) == 7 * LARGE.layers + 1
