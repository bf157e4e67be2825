"""The examples of docs/any_model.md, and a model that others wrote."""

import pathlib
import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import transformers

import lowbit as lb
from lowbit import recipes

PAGE = pathlib.Path(__file__).resolve().parent.parent / 'docs/any_model.md'
BLOCKS = re.findall(
  r'## ([\w ]+)\n.*?```python\n(.*?)```', PAGE.read_text(), re.DOTALL
)


def run(title):
  names: dict = {}
  # As JAX is by default.
  with jax.numpy_rank_promotion('allow'):
    exec(dict(BLOCKS)[title], names)
  return names


def test_plain_params():
  names = run('Plain params')
  dense = jax.tree.map(
    lambda p: lb.dequantize(lb.unpack(p)) if hasattr(p, 'words') else p,
    names['small'],
    is_leaf=lambda p: hasattr(p, 'words'),
  )
  with jax.numpy_rank_promotion('allow'):
    want = names['model'](dense, names['x'])
  chex.assert_trees_all_close(names['y'], want, rtol=1e-4, atol=1e-5)
  weights = 2 * 64 * 128
  assert lb.bits(names['small']) == weights * 5 + 192 * 32


def test_haiku():
  names = run('Haiku')
  (w,) = jax.tree.leaves(names['params'])
  (dw,) = jax.tree.leaves(names['grads'])
  x = lb.fake_quantize(names['x'], 'int8@token')
  y = x @ lb.fake_quantize(w, 'int4@g32', axis=0)
  np.testing.assert_allclose(dw, x.T @ (2 * y / y.size), rtol=1e-4, atol=1e-6)


def test_equinox():
  names = run('Equinox')
  w = lb.fake_quantize(names['float_layer'].weight, 'mxfp4')
  want = names['x'] @ w.T + names['layer'].bias[None]
  chex.assert_trees_all_close(names['y'], want, rtol=1e-4, atol=1e-5)
  assert 0 < names['error'] < 1


def test_nnx():
  names = run('Flax NNX')
  want = names['model'](names['x'])
  assert float(jnp.linalg.norm(names['y'] - want)) < 0.2 * float(
    jnp.linalg.norm(want)
  )
  assert jax.tree.leaves(names['grads'])


@pytest.fixture(scope='module')
def bert():
  """BERT as the package transformers has it, with random weights."""
  config = transformers.BertConfig(
    vocab_size=64,
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=64,
    max_position_embeddings=16,
  )
  model = transformers.FlaxBertModel(config, seed=0)
  tokens = jnp.arange(32).reshape(2, 16)
  batch = {
    'input_ids': tokens,
    'attention_mask': jnp.ones_like(tokens),
    'token_type_ids': jnp.zeros_like(tokens),
    'position_ids': jnp.broadcast_to(jnp.arange(16), (2, 16)),
  }
  return model.module, model.params, batch


EMBEDDINGS = tuple(
  f'embeddings/{kind}_embeddings/embedding'
  for kind in ('word', 'position', 'token_type')
)
LAYER = ('attention/self/query', 'attention/self/key', 'attention/self/value')
LAYER += ('attention/output/dense', 'intermediate/dense', 'output/dense')


def hidden(output):
  return output.last_hidden_state


def test_every_matmul_of_a_foreign_model_is_accounted_for(bert):
  module, params, batch = bert
  found = lb.intercept.matmuls(
    lambda p, b: hidden(module.apply({'params': p}, **b)), params, batch
  )
  want = {f'encoder/layer/{i}/{n}/kernel' for i in range(2) for n in LAYER}
  assert {m.path for m in found} == {*want, 'pooler/dense/kernel'}
  recipe = recipes.gptq('int4@g32', 'int8@token', keep=EMBEDDINGS)
  quantized = lb.quantize_model(module, params, recipe, [batch])
  is_operator = lambda x: isinstance(x, lb.operators.Operator)
  leaves = jax.tree_util.tree_leaves_with_path(quantized, is_leaf=is_operator)
  coded = {
    '/'.join(k.key for k in path) for path, x in leaves if is_operator(x)
  }
  assert coded == {*want, 'pooler/dense/kernel'}


def test_a_foreign_model_is_served_and_simulated(bert):
  module, params, batch = bert
  run = lambda p, **how: hidden(lb.apply(module, p, **batch, **how))
  want = hidden(module.apply({'params': params}, **batch))
  recipe = recipes.nearest('int4@g32', 'int8@token', keep=EMBEDDINGS)
  served = run(lb.quantize_model(module, params, recipe, [batch]))
  simulated = run(params, recipe=recipe)
  chex.assert_trees_all_close(served, simulated, rtol=1e-3, atol=1e-3)
  error = jnp.linalg.norm(served - want) / jnp.linalg.norm(want)
  assert 1e-3 < float(error) < 0.3
  loss = lambda p: jnp.mean(run(p, recipe=recipe) ** 2)
  grads = jax.grad(loss)(params)
  gradient = grads['encoder']['layer']['0']['intermediate']['dense']['kernel']
  assert float(jnp.linalg.norm(gradient)) > 0
  chex.assert_trees_all_equal(run(params), want)
