import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lowbit as lb
from lowbit import operators, recipes
from lowbit.models import decoder

CONFIG = decoder.DecoderConfig(
  width=32, layers=2, heads=2, kv_heads=1, head_dim=16, hidden=48
)
MODEL = decoder.Decoder(CONFIG)
TOKENS = jax.random.randint(jax.random.key(0), (4, 24), 0, 256)
PARAMS = MODEL.init(jax.random.key(1), TOKENS)['params']
FLOAT = MODEL.apply({'params': PARAMS}, TOKENS)


def error(recipe, model=MODEL, params=PARAMS):
  q = lb.quantize_model(model, params, recipe, [TOKENS[:2], TOKENS[2:]])
  got = lb.apply(model, q, TOKENS)
  return float(jnp.mean((got - FLOAT) ** 2) / jnp.mean(FLOAT**2))


def test_scanned_layers_equal_unrolled_ones():
  scanned = decoder.Decoder(dataclasses.replace(CONFIG, scan_layers=True))
  stacked = decoder.stack(PARAMS)
  for recipe in (
    recipes.nearest('int4@g16'),
    recipes.smoothquant(),
    recipes.gptq('int4@g16', sequential=False),
    recipes.awq('int4z@g16'),
  ):
    one, other = error(recipe), error(recipe, scanned, stacked)
    np.testing.assert_allclose(one, other, rtol=0.05)
  stats = lb.calibrate(scanned, stacked, [TOKENS])
  single = lb.calibrate(MODEL, PARAMS, [TOKENS])
  chex.assert_trees_all_close(
    stats['layers/mlp/down/kernel'].hessian[1],
    single['layers_1/mlp/down/kernel'].hessian,
    atol=1e-4,
  )
  with pytest.raises(ValueError, match='unrolled'):
    error(recipes.gptq('int4@g16'), scanned, stacked)


def test_solvers_help_in_their_order():
  nearest = error(recipes.nearest('int3@g16'))
  parallel = error(recipes.gptq('int3@g16', sequential=False))
  sequential = error(recipes.gptq('int3@g16'))
  assert parallel < 0.9 * nearest
  assert sequential < nearest


def test_sequential_sees_quantized_inputs():
  seen = lb.quantize_model(MODEL, PARAMS, recipes.gptq('int2z@g16'), [TOKENS])
  apart = lb.quantize_model(
    MODEL, PARAMS, recipes.gptq('int2z@g16', sequential=False), [TOKENS]
  )
  first, last = 'layers_0', 'layers_1'
  codes = lambda p, layer, a, b: p[layer][a][b]['kernel'].q.codes
  chex.assert_trees_all_equal(
    codes(seen, first, 'attention', 'query'),
    codes(apart, first, 'attention', 'query'),
  )
  other = codes(seen, last, 'mlp', 'down') != codes(apart, last, 'mlp', 'down')
  assert float(jnp.mean(other)) > 0.01


def test_a_second_sequential_run_compiles_nothing():
  seen = []
  listen = lambda event, seconds, **rest: seen.append(event)
  run = lambda: lb.quantize_model(MODEL, PARAMS, recipes.gptq(), [TOKENS])
  run()
  jax.monitoring.register_event_duration_secs_listener(listen)
  try:
    run()
    jax.jit(lambda x: x + len(seen))(1.0)  # The listener does hear.
  finally:
    jax.monitoring.unregister_event_duration_listener(listen)
  assert sum('backend_compile' in event for event in seen) == 1, seen


def test_the_model_recipes_keep_the_function_in_wide_formats():
  for recipe in (
    recipes.quarot('int8@channel', 'int8@token'),
    recipes.awq('int8z@g16'),
    recipes.smoothquant(),
  ):
    assert error(recipe) < 1e-3, recipe.name
  assert error(recipes.floating()) == 0.0


def test_recording_does_not_keep_a_model_of_another_shape():
  a = lb.calibrate(MODEL, PARAMS, [TOKENS])
  b = lb.calibrate(MODEL, PARAMS, [TOKENS[:1], TOKENS[1:]])
  chex.assert_trees_all_close(a, b, rtol=1e-4, atol=1e-5)


def test_bad_input():
  recipe = recipes.nearest('int4@g16')
  with pytest.raises(ValueError, match='`batches` is empty'):
    lb.quantize_model(MODEL, PARAMS, recipe)
  with pytest.raises(ValueError, match='`batches` is empty'):
    lb.calibrate(MODEL, PARAMS, [])
  for bad in (jnp.nan, jnp.inf):
    broken = {
      **PARAMS,
      'head': {'kernel': PARAMS['head']['kernel'].at[3].set(bad)},
    }
    with pytest.raises(ValueError, match='head/kernel holds NaN or Inf'):
      lb.quantize_model(MODEL, broken, recipe, [TOKENS])
  broken = {
    **PARAMS,
    'head': {'kernel': PARAMS['head']['kernel'].astype(jnp.complex64)},
  }
  with pytest.raises(TypeError, match='complex'):
    lb.quantize_model(MODEL, broken, recipe, [TOKENS])
  with pytest.raises(ValueError, match='needs statistics'):
    lb.calibrate.quantize_weight(
      jnp.ones((16, 16)), recipes.gptq('int4').rules[-1]
    )
  with pytest.raises(ValueError, match='rotates'):
    lb.apply(MODEL, PARAMS, TOKENS, recipe=recipes.quarot())


def test_bits_of_a_quantized_tree():
  q = lb.quantize_model(MODEL, PARAMS, recipes.nearest('mxfp4'), [TOKENS])
  count = sum(p.size for p in jax.tree.leaves(PARAMS))
  rest = PARAMS['embed']['embedding'].size + 5 * 32
  ragged = 0  # Every width here is a multiple of 16, not of 32.
  for path in ('mlp',):
    assert isinstance(q['layers_0'][path]['down']['kernel'], operators.Coded)
    ragged += 2 * 32 * 8 // 2
  want = 32 * rest + 4.25 * (count - rest) + ragged
  assert lb.bits(q) == want
  np.testing.assert_allclose(lb.bits_per_weight(q), want / count)
