"""Training recipes on a small decoder: every format trains, both passes."""

import jax
import jax.numpy as jnp
import optax
import pytest

import lowbit as lb
from lowbit import quantize, recipes
from lowbit.experiment import fit
from lowbit.models import decoder, loss

MODEL = decoder.Decoder(
  decoder.DecoderConfig(
    vocab=32, width=32, layers=1, heads=2, kv_heads=1, head_dim=16, hidden=48
  )
)
# Counting upwards by 1 to 3: easy to learn, and easy to check.
START = jax.random.randint(jax.random.key(0), (128, 1), 0, 32)
STEP = jax.random.randint(jax.random.key(1), (128, 1), 1, 4)
TOKENS = (START + STEP * jnp.arange(24)[None]) % 32
PARAMS = MODEL.init(jax.random.key(2), TOKENS[:1])['params']


def train(recipe, steps=60, quantizers=None):
  def nats(v, batch, step, key):
    logits = lb.apply(
      MODEL,
      v['params'],
      batch[0],
      recipe=recipe,
      quantizers=v.get('quantizers'),
      step=step if recipe and recipe.ramp else None,
      rngs={'lowbit': key},
    )
    return jnp.mean(loss.next_token_nats(logits, batch[0]))

  start = {'params': PARAMS}
  if quantizers is not None:
    start['quantizers'] = quantizers
  got = fit.fit(nats, start, (TOKENS,), optax.adam(1e-2), steps, 32)
  return float(got.losses[0]), float(jnp.mean(got.losses[-8:]))


FORMATS = {
  'mxfp8': ('mxfp8_e4m3', 'mxfp8_e4m3', 'mxfp8_e5m2'),
  'mxfp6': ('mxfp6_e2m3', 'mxfp6_e2m3', 'mxfp6_e3m2'),
  'mxfp4': ('mxfp4', 'mxfp4', 'mxfp4~stochastic'),
  'nvfp4': ('nvfp4', 'nvfp4', 'nvfp4~stochastic'),
  'int8': ('int8@channel', 'int8@token', 'int8@token~stochastic'),
  'int4': ('int4@channel', 'int4@token', 'int4@token~stochastic'),
}


@pytest.mark.parametrize(
  'name',
  [
    pytest.param(n, marks=() if n == 'mxfp8' else pytest.mark.slow)
    for n in FORMATS
  ],
)
def test_every_format_trains_forward_and_backward(name):
  first, last = train(recipes.pretraining(*FORMATS[name]))
  assert first > 3
  assert last < 0.5 * first


def test_qat_with_learned_quantizers_and_a_ramp():
  recipe = recipes.qat(
    quantize.Elastic(2), quantize.Lsq(8), ramp=quantize.Ramp(10, 30)
  )
  q = lb.init_quantizers(MODEL, PARAMS, recipe, TOKENS[:8])
  first, last = train(recipe, 80, q)
  assert last < 0.6 * first


def test_the_recipe_quantizes_what_it_says():
  recipe = recipes.pretraining('int4@channel', 'int8@token', 'int8@token')
  rule = recipe.rule('layers_0/mlp/up/kernel')
  how = rule.backward
  assert str(how.dx_weight) == str(rule.weight) == 'int4@channel'
  assert str(how.dw_input) == str(rule.activation) == 'int8@token'
  assert not recipe.rule('head/kernel').changes
