"""Recipes that rewrite params first: an NNX decoder and its twin in Linen."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import pytest
from flax import nnx

import lowbit as lb
from lowbit import recipes
from lowbit.models import decoder, rotary

CONFIG = decoder.DecoderConfig(
  vocab=32, width=32, layers=2, heads=2, kv_heads=2, head_dim=16, hidden=64
)
TOKENS = jax.random.randint(jax.random.key(1), (2, 12), 0, CONFIG.vocab)


def linear(n, m):
  return nnx.Linear(n, m, use_bias=False, rngs=nnx.Rngs(0))


class Attention(nnx.Module):
  def __init__(self):
    c = CONFIG
    self.query, self.key, self.value, self.out = (
      linear(c.width, c.width) for _ in range(4)
    )

  def __call__(self, x):
    c = CONFIG
    heads = lambda y: y.reshape(*x.shape[:2], c.heads, c.head_dim)
    q, k, v = (heads(f(x)) for f in (self.query, self.key, self.value))
    q, k = (rotary.rope(y, c.rope_base) for y in (q, k))
    scores = jnp.einsum('bthc,bshc->bhts', q, k) * c.head_dim**-0.5
    seen = jnp.tril(jnp.ones(scores.shape[-2:], bool))[None, None]
    weights = jax.nn.softmax(jnp.where(seen, scores, -1e30))
    y = jnp.einsum('bhts,bshc->bthc', weights, v)
    return self.out(y.reshape(x.shape))


class SwiGLU(nnx.Module):
  def __init__(self):
    self.gate, self.up = (linear(CONFIG.width, CONFIG.hidden) for _ in range(2))
    self.down = linear(CONFIG.hidden, CONFIG.width)

  def __call__(self, x):
    return self.down(nnx.silu(self.gate(x)) * self.up(x))


def norm():
  return nnx.RMSNorm(CONFIG.width, epsilon=CONFIG.norm_eps, rngs=nnx.Rngs(0))


class Layer(nnx.Module):
  def __init__(self):
    self.attention_norm, self.mlp_norm = norm(), norm()
    self.attention, self.mlp = Attention(), SwiGLU()

  def __call__(self, x):
    x = x + self.attention(self.attention_norm(x))
    return x + self.mlp(self.mlp_norm(x))


class Decoder(nnx.Module):
  """Its layers in a list, or by names."""

  def __init__(self, listed: bool):
    c = CONFIG
    self.embed = nnx.Embed(c.vocab, c.width, rngs=nnx.Rngs(0))
    layers = [Layer() for _ in range(c.layers)]
    if listed:
      self.layers = nnx.List(layers)
    else:
      self.layers_0, self.layers_1 = layers
    self.final_norm = norm()
    self.head = linear(c.width, c.vocab)

  def __call__(self, tokens):
    x = self.embed(tokens)
    named = lambda: (self.layers_0, self.layers_1)
    for layer in self.layers if hasattr(self, 'layers') else named():
      x = layer(x)
    return self.head(self.final_norm(x))


def twins(listed):
  """An NNX decoder, and Linen's with the same params."""
  model = decoder.Decoder(CONFIG)
  params = model.init(jax.random.key(0), TOKENS)['params']
  draw = lambda x: x * (1 + jax.random.uniform(jax.random.key(x.size), x.shape))
  params = jax.tree.map(draw, params)  # Gains that are not 1.
  tree = dict(params)
  if listed:
    tree['layers'] = {i: tree.pop(f'layers_{i}') for i in range(CONFIG.layers)}
  found = Decoder(listed)
  state = nnx.state(found, nnx.Param)
  nnx.replace_by_pure_dict(state, tree)
  nnx.update(found, state)
  return found, model, params


RECIPES = {
  'smoothquant': recipes.smoothquant('int8@channel', 'int8@token'),
  'awq': recipes.awq('int4@g16'),
  'quarot': recipes.quarot('int4@channel', 'int8@token'),
}


@nnx.jit
def run(model, tokens):
  return model(tokens)


@pytest.mark.parametrize(
  'name, listed',
  [
    ('smoothquant', True),
    ('awq', True),
    ('awq', False),
    pytest.param('quarot', True, marks=pytest.mark.slow),
  ],
)
def test_the_twins_agree(name, listed):
  found, model, params = twins(listed)
  before = run(found, TOKENS)
  want = jax.jit(model.apply)({'params': params}, TOKENS)
  chex.assert_trees_all_close(before, want, rtol=1e-4, atol=1e-4)
  served = lb.nnx.quantize(found, RECIPES[name], [TOKENS])
  quantized = lb.quantize_model(model, params, RECIPES[name], [TOKENS])
  want = jax.jit(lb.apply, static_argnums=0)(model, quantized, TOKENS)
  got = run(served, TOKENS)
  chex.assert_trees_all_close(got, want, rtol=1e-4, atol=1e-4)
  assert jnp.max(jnp.abs(got - before)) > 0.01
  # The float model is as it was.
  chex.assert_trees_all_equal(run(found, TOKENS), before)


def test_without_the_rewrite_they_differ():
  """The steps of a recipe are taken, not passed over."""
  found, _, _ = twins(True)
  recipe = RECIPES['awq']
  plain = dataclasses.replace(recipe, prepare=())
  a, b = (lb.nnx.quantize(found, r, [TOKENS]) for r in (recipe, plain))
  assert jnp.max(jnp.abs(run(a, TOKENS) - run(b, TOKENS))) > 0.01
