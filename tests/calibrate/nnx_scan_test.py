"""Quantizers with a state of their own, in NNX layers that are scanned."""

import chex
import jax
import jax.numpy as jnp
import pytest
from flax import nnx

import lowbit as lb
from lowbit import recipes
from lowbit.intercept import nnx as nnx_lib
from tests.calibrate import nnx_test

X = nnx_test.X
DELAYED = lb.quantize.Delayed('int4@tensor', history=4)
RECIPES = {
  'learned': recipes.qat(lb.quantize.Lsq(4), lb.quantize.Lsq(8), keep=()),
  'delayed': lb.Recipe('delayed', (lb.Rule('.*', DELAYED, DELAYED),)),
}


def stack():
  return nnx_test.Stack(nnx.Rngs(0))


def alone(model, recipe, x) -> list:
  """The stacked layers as models of their own, started from float inputs."""
  found = []
  for i in range(3):
    layer = nnx.Linear(16, 16, rngs=nnx.Rngs(0))
    layer.kernel[...] = model.layers.kernel[...][i]
    start = nnx_test.float_inputs(model, x, i)
    found.append(lb.nnx.simulate(nnx.Sequential(layer), recipe, start))
  return found


def chain(layers, x):
  for layer in layers:
    x = nnx.tanh(layer(x))
  return x


@nnx.jit
def run(model, x):
  return model(x)


def leaves(model, kind) -> list:
  """Their values, by the names of what keeps them."""
  state = nnx.to_pure_dict(nnx.state(model, kind))
  return jax.tree.leaves(state)


@pytest.mark.parametrize('name', RECIPES)
def test_each_layer_has_a_state_of_its_own(name):
  recipe, model = RECIPES[name], stack()
  scanned = lb.nnx.simulate(model, recipe, X)
  layers = alone(model, recipe, X)
  for x in (X, 3 * X, X[::-1]):  # A history changes from call to call.
    want = chain(layers, x)
    chex.assert_trees_all_close(run(scanned, x), want, rtol=1e-4, atol=1e-5)
  assert jnp.max(jnp.abs(want - model(X[::-1]))) > 1e-3
  kind = nnx_lib.Quantizer if name == 'learned' else nnx_lib.Delayed
  each = [leaves(layer, kind) for layer in layers]
  stacked = [jnp.stack(xs) for xs in zip(*each)]
  found = leaves(scanned, kind)
  assert len(found) == len(stacked) == 2
  chex.assert_trees_all_close(found, stacked, rtol=1e-4, atol=1e-6)
  for value in found:
    assert not jnp.allclose(value[0], value[1])


def test_gradients_are_those_of_the_layers_one_by_one():
  recipe, model = RECIPES['learned'], stack()
  scanned = lb.nnx.simulate(model, recipe, X)
  layers = nnx.List(alone(model, recipe, X))
  dy = jax.random.normal(jax.random.key(1), X.shape)
  loss = lambda apply: lambda m: jnp.sum(apply(m, X) * dy)
  kind = nnx_lib.Quantizer
  filters = nnx.DiffState(0, kind)
  together = nnx.grad(loss(lambda m, x: m(x)), argnums=filters)(scanned)
  apart = nnx.grad(loss(chain), argnums=filters)(layers)
  found = jax.tree.leaves(nnx.to_pure_dict(together))
  each = jax.tree.leaves(nnx.to_pure_dict(apart))  # Layer by layer.
  want = [jnp.stack(each[i::2]) for i in range(2)]
  chex.assert_trees_all_close(found, want, rtol=1e-3, atol=1e-5)
  for grad in found:
    assert bool(jnp.all(jnp.abs(grad).reshape(3, -1).max(axis=1) > 0))
