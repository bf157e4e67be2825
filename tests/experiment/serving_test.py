"""The served forward is the model's, with and without a cache and a mesh."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lowbit as lb
from lowbit import operators
from lowbit.experiment import serving
from lowbit.models import decoder

CONFIG = decoder.DecoderConfig(
  vocab=64, width=64, layers=2, heads=4, kv_heads=2, head_dim=16, hidden=96
)
MODEL = decoder.Decoder(CONFIG)
TOKENS = jax.random.randint(jax.random.key(0), (2, 7), 0, 64)


# All that a decoder may have besides, with biases that are not zero.
FULL = dataclasses.replace(
  CONFIG,
  rope_factors=(1.0, 1.0, 1.0, 1.5, 2.0, 3.0, 4.0, 4.0),
  rope_scale=1.3,
  qkv_bias=True,
  out_bias=True,
  mlp_bias=True,
  qk_norm=True,
  window=3,
  window_from=1,
)


def float_params(model=MODEL):
  params = jax.jit(model.init)(jax.random.key(1), TOKENS)['params']
  is_bias = lambda path: path[-1].key == 'bias'
  return jax.tree_util.tree_map_with_path(
    lambda path, x: x + 0.1 if is_bias(path) else x, params
  )


def packed_params():
  recipe = lb.recipes.nearest('int4@g32', keep=('embed/embedding',))
  params = lb.quantize_model(MODEL, float_params(), recipe, [TOKENS])
  return operators.pack(params)


def test_a_dynamic_base_is_refused():
  config = dataclasses.replace(CONFIG, rope_dynamic=(2.0, 4))
  cache = serving.empty_cache(config, 2, 9)
  with pytest.raises(ValueError, match='which a cache cannot'):
    serving.forward(float_params(), TOKENS, cache, 0, config)


@pytest.mark.parametrize('config', [CONFIG, FULL], ids=['packed', 'options'])
def test_prefill_and_decode_steps_give_the_models_logits(config):
  model = decoder.Decoder(config)
  params = packed_params() if config is CONFIG else float_params(model)
  want = lb.apply(model, params, TOKENS)
  cache = serving.empty_cache(CONFIG, 2, 9)
  step = jax.jit(
    lambda tokens, cache, start: serving.forward(
      params, tokens, cache, start, config
    )
  )
  logits, cache = step(TOKENS[:, :5], cache, jnp.int32(0))
  parts = [logits]
  for t in (5, 6):
    logits, cache = step(TOKENS[:, t : t + 1], cache, jnp.int32(t))
    parts.append(logits)
  got = jnp.concatenate(parts, axis=1)
  chex.assert_trees_all_close(got, want, atol=1e-4 * float(abs(want).max()))


def test_packed_params_are_served_alike_and_small():
  params = packed_params()
  leaves = jax.tree.leaves(
    params, is_leaf=lambda x: isinstance(x, lb.PackedQTensor)
  )
  assert sum(isinstance(x, lb.PackedQTensor) for x in leaves) == 15
  logits = lb.apply(MODEL, params, TOKENS)
  dense = lb.apply(MODEL, operators.decode(params), TOKENS)
  limit = 1e-4 * float(abs(dense).max())
  chex.assert_trees_all_close(logits, dense, atol=limit)


@pytest.mark.parametrize('config', [CONFIG, FULL], ids=['packed', 'options'])
def test_a_mesh_of_one_device_changes_nothing(config):
  model = decoder.Decoder(config)
  params = packed_params() if config is CONFIG else float_params(model)
  mesh = jax.sharding.Mesh(
    np.asarray(jax.devices()[:1]).reshape(1, 1), ('data', 'model')
  )
  step, _ = serving.sharded_forward(mesh, params, config)
  cache = serving.empty_cache(config, 2, 7)
  got, _ = jax.jit(step)(params, TOKENS, cache, jnp.int32(0))
  want = lb.apply(model, params, TOKENS)
  chex.assert_trees_all_close(got, want, atol=1e-4 * float(abs(want).max()))


def test_sizes_that_do_not_divide_are_refused():
  mesh = jax.sharding.AbstractMesh((1, 3), ('data', 'model'))
  with pytest.raises(ValueError, match='heads.*4.*3 devices'):
    serving.sharded_forward(mesh, {}, CONFIG)
