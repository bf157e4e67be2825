"""Recipes on NNX models."""

import functools

import chex
import jax
import jax.numpy as jnp
import optax
import pytest
from flax import nnx

import lowbit as lb
from lowbit import recipes
from lowbit.intercept import nnx as nnx_lib
from lowbit.intercept import nnx_sites

KEY = jax.random.key(0)
X = jax.random.normal(jax.random.key(7), (5, 16))


class Mlp(nnx.Module):
  def __init__(self, rngs):
    self.up = nnx.Linear(16, 32, rngs=rngs)
    self.down = nnx.Linear(32, 8, rngs=rngs)

  def __call__(self, x):
    return self.down(nnx.relu(self.up(x)))


class Zoo(nnx.Module):
  """Every layer that is met, once."""

  def __init__(self, rngs):
    self.embed = nnx.Embed(11, 16, rngs=rngs)
    self.heads = nnx.MultiHeadAttention(
      2, 16, decode=False, deterministic=True, rngs=rngs
    )
    self.mix = nnx.Einsum('bti,io->bto', (16, 16), (16,), rngs=rngs)
    self.conv = nnx.Conv(16, 8, 3, rngs=rngs)
    self.back = nnx.ConvTranspose(8, 16, 3, rngs=rngs)

  def __call__(self, tokens):
    x = self.embed(tokens)
    x = x + self.heads(x)
    x = self.back(self.conv(self.mix(x)))
    return self.embed.attend(x)


TOKENS = jnp.arange(12).reshape(2, 6) % 11
PATHS = {
  'embed/embedding',
  'heads/query/kernel',
  'heads/key/kernel',
  'heads/value/kernel',
  'heads/out/kernel',
  'mix/kernel',
  'conv/kernel',
  'back/kernel',
}


def mlp():
  return Mlp(nnx.Rngs(0))


def zoo():
  return Zoo(nnx.Rngs(0))


def rounded(model, spec):
  """The float model with decoded weights: an oracle."""
  clone = nnx.clone(model)
  for layer, site in nnx_sites.sites(clone).values():
    w = getattr(layer, site.weight)
    w[...] = lb.fake_quantize(w[...], spec, site.found.weight_axes)
  return clone


def test_every_product_is_met():
  model = zoo()
  assert set(nnx_sites.sites(model)) == PATHS
  assert {m.path for m in lb.nnx.matmuls(model, TOKENS)} == PATHS


def test_a_float_recipe_changes_no_bit():
  model = zoo()
  want = model(TOKENS)
  for clone in (
    lb.nnx.quantize(model, recipes.floating()),
    lb.nnx.simulate(model, recipes.floating()),
  ):
    chex.assert_trees_all_equal(clone(TOKENS), want)
  lb.nnx.quantize(model, recipes.nearest('int4@channel', keep=()))
  chex.assert_trees_all_equal(model(TOKENS), want)


@pytest.mark.parametrize('spec', ['int4@channel', 'mxfp4'])
def test_quantized_weights_are_the_decoded_ones(spec):
  model, recipe = zoo(), recipes.nearest(spec, keep=())
  want = rounded(model, spec)(TOKENS)
  served = lb.nnx.quantize(model, recipe, [TOKENS])
  chex.assert_trees_all_close(served(TOKENS), want, rtol=1e-4, atol=1e-5)
  simulated = lb.nnx.simulate(model, recipe)
  chex.assert_trees_all_close(simulated(TOKENS), want, rtol=1e-4, atol=1e-5)


def test_inputs_are_quantized_alike_served_and_simulated():
  model = zoo()
  recipe = recipes.nearest('int8@channel', 'int4@token', keep=())
  served = lb.nnx.quantize(model, recipe)(TOKENS)
  simulated = lb.nnx.simulate(model, recipe)(TOKENS)
  weights = lb.nnx.simulate(model, recipes.nearest('int8@channel', keep=()))
  chex.assert_trees_all_close(served, simulated, rtol=1e-3, atol=1e-4)
  assert jnp.max(jnp.abs(simulated - weights(TOKENS))) > 0.01


def test_a_model_agrees_with_its_twin_in_linen():
  from flax import linen as nn

  model = mlp()

  class Twin(nn.Module):
    @nn.compact
    def __call__(self, x):
      return nn.Dense(8, name='down')(nn.relu(nn.Dense(32, name='up')(x)))

  params = {
    name: {'kernel': getattr(model, name).kernel[...], 'bias': jnp.zeros(n)}
    for name, n in (('up', 32), ('down', 8))
  }
  recipe = recipes.gptq('int3@g16', sequential=False, keep=())
  served = lb.nnx.quantize(model, recipe, [X])
  quantized = lb.quantize_model(Twin(), params, recipe, [X])
  chex.assert_trees_all_close(
    served(X), lb.apply(Twin(), quantized, X), rtol=1e-5
  )


def test_sequential_solvers_see_quantized_inputs():
  model, spec = mlp(), 'int2@g16'
  serial = lb.nnx.quantize(model, recipes.gptq(spec, keep=()), [X])
  apart = lb.nnx.quantize(
    model, recipes.gptq(spec, sequential=False, keep=()), [X]
  )
  same = lambda name: jnp.array_equal(
    getattr(serial, name).kernel[...].q.codes,
    getattr(apart, name).kernel[...].q.codes,
  )
  assert same('up')
  assert not same('down')


def test_statistics_of_every_layer_and_batch():
  stats = lb.nnx.calibrate(zoo(), [TOKENS, TOKENS[::-1]])
  assert set(stats) == PATHS - {'embed/embedding', 'back/kernel'}
  assert float(stats['mix/kernel'].count) == 24
  model, batches = mlp(), [X, 2 * X]
  found = lb.nnx.calibrate(model, batches)['up/kernel']
  want = lb.solvers.observe(jnp.concatenate(batches))
  chex.assert_trees_all_close(found, want, rtol=1e-5, atol=1e-6)


def test_inputs_of_a_convolution_are_its_windows():
  model = zoo()
  stats = lb.nnx.calibrate(model, [TOKENS])['conv/kernel']
  x = model.embed(TOKENS)
  x = model.mix(x + model.heads(x))
  padded = jnp.pad(x, ((0, 0), (1, 1), (0, 0)))
  windows = jnp.concatenate([padded[:, i : i + 6] for i in range(3)], axis=-1)
  want = lb.solvers.observe(windows)
  chex.assert_trees_all_close(stats, want, rtol=1e-4, atol=1e-5)


def test_packed_weights_split_merge_and_jit():
  model = mlp()
  served = lb.nnx.quantize(model, recipes.nearest('int4@g16', keep=()))
  want = served(X)
  nnx.update(served, lb.operators.pack(nnx.state(served)))
  definition, state = nnx.split(served)
  run = jax.jit(lambda state, x: nnx.merge(definition, state)(x))
  chex.assert_trees_all_close(run(state, X), want, rtol=1e-5, atol=1e-5)
  chex.assert_trees_all_close(
    nnx.jit(lambda m, x: m(x))(served, X), want, rtol=1e-5, atol=1e-5
  )
  weights = 16 * 32 + 32 * 8
  assert (
    lb.bits(nnx.state(served)) == weights * 4 + weights // 16 * 32 + 40 * 32
  )


class Stack(nnx.Module):
  """Three layers, made by vmap and run by scan."""

  def __init__(self, rngs):
    @nnx.split_rngs(splits=3)
    @nnx.vmap(in_axes=0, out_axes=0)
    def make(rngs):
      return nnx.Linear(16, 16, rngs=rngs)

    self.layers = make(rngs)

  def __call__(self, x):
    @nnx.scan(in_axes=(0, nnx.Carry), out_axes=nnx.Carry)
    def run(layer, x):
      return nnx.tanh(layer(x))

    return run(self.layers, x)


RECIPES = {
  'weights': recipes.nearest('int4@g8', 'int8@token', keep=()),
  'solver': recipes.gptq('int3@g8', sequential=False, keep=()),
}


def unrolled(model, recipe, batches):
  """Each layer by itself: an oracle for stacked ones."""
  x, stack = batches[0], model.layers
  for i in range(3):
    layer = nnx.Linear(16, 16, rngs=nnx.Rngs(0))
    layer.kernel[...] = stack.kernel[...][i]
    wrapped = nnx.Sequential(layer)
    x = nnx.tanh(
      lb.nnx.quantize(wrapped, recipe, [float_inputs(model, batches[0], i)])(x)
    )
  return x


def float_inputs(model, x, i):
  for j in range(i):
    x = nnx.tanh(x @ model.layers.kernel[...][j])
  return x


@pytest.mark.parametrize('name', RECIPES)
def test_stacked_layers_under_scan(name):
  model = Stack(nnx.Rngs(0))
  served = lb.nnx.quantize(model, RECIPES[name], [X])
  want = unrolled(model, RECIPES[name], [X])
  chex.assert_trees_all_close(served(X), want, rtol=1e-4, atol=1e-5)


def test_training_reaches_weights_and_learned_quantizers():
  recipe = recipes.qat(lb.quantize.Lsq(4), 'int8@token', keep=())
  model = lb.nnx.simulate(mlp(), recipe, X)
  target = jnp.sin(X[:, :8])
  optimizer = nnx.Optimizer(model, optax.adam(1e-2), wrt=nnx.Param)

  @nnx.jit
  def step(model, optimizer):
    loss = lambda m: jnp.mean((m(X) - target) ** 2)
    value, grads = nnx.value_and_grad(loss)(model)
    optimizer.update(model, grads)
    return value

  before = jax.tree.leaves(nnx.state(model, nnx_lib.Quantizer))
  with jax.numpy_dtype_promotion('standard'):  # As optax needs it.
    losses = [float(step(model, optimizer)) for _ in range(60)]
  after = jax.tree.leaves(nnx.state(model, nnx_lib.Quantizer))
  assert losses[-1] < 0.5 * losses[0]
  assert any(not jnp.array_equal(a, b) for a, b in zip(before, after))


def test_backward_products_are_quantized():
  model = nnx.Sequential(nnx.Linear(16, 8, use_bias=False, rngs=nnx.Rngs(0)))
  recipe = recipes.pretraining('mxfp8_e4m3', 'mxfp8_e4m3', 'mxfp4', keep=())
  simulated = lb.nnx.simulate(model, recipe)
  dy = jax.random.normal(KEY, (5, 8))
  grads = nnx.grad(lambda m: jnp.sum(m(X) * dy))(simulated)
  found = jax.tree.leaves(grads)
  w_grad = next(g for g in found if g.shape == (16, 8))
  q = lambda v, spec, axis: lb.fake_quantize(v, spec, axis)
  want = q(X, 'mxfp8_e4m3', 0).T @ q(dy, 'mxfp4', 0)
  chex.assert_trees_all_close(w_grad, want, rtol=1e-5, atol=1e-5)


def test_stochastic_rounding_draws_anew_and_needs_a_key():
  recipe = recipes.qat('int4@channel~stochastic', None, keep=())
  model = lb.nnx.simulate(mlp(), recipe, key=KEY)
  run = nnx.jit(lambda m, x: m(x))
  assert not jnp.array_equal(run(model, X), run(model, X))
  with pytest.raises(ValueError, match='up/kernel rounds stochastically'):
    lb.nnx.simulate(mlp(), recipe)(X)


def test_delayed_scales_follow_the_data():
  rule = lb.Rule('.*', activation=lb.quantize.Delayed('int8@tensor'))
  model = lb.nnx.simulate(mlp(), lb.Recipe('delayed', (rule,)))
  run = nnx.jit(lambda m, x: m(x))
  history = lambda: jax.tree.leaves(nnx.state(model, nnx_lib.Delayed))
  before = history()
  run(model, X)
  assert any(not jnp.array_equal(a, b) for a, b in zip(before, history()))


def test_a_schedule_reads_the_step():
  ramp = lb.quantize.Ramp(10, 20)
  recipe = recipes.qat('int2@channel', None, ramp=ramp, keep=())
  model = mlp()
  clone = lb.nnx.simulate(model, recipe)

  @nnx.jit
  def run(m, step):
    with lb.nnx.schedule(step):
      return m(X)

  chex.assert_trees_all_equal(run(clone, jnp.int32(0)), model(X))
  want = rounded(model, 'int2@channel')(X)
  chex.assert_trees_all_close(
    run(clone, jnp.int32(30)), want, rtol=1e-4, atol=1e-6
  )
  with pytest.raises(ValueError, match='pass `step`'):
    clone(X)


def test_calls_of_one_shape_are_traced_once():
  model = lb.nnx.simulate(mlp(), recipes.qat(keep=()))
  run = nnx.jit(chex.assert_max_traces(lambda m, x: m(x), n=1))
  chex.assert_trees_all_equal(run(model, X), run(model, X))


class Loose(nnx.Module):
  def __init__(self, rngs):
    self.w = nnx.Param(jnp.ones((16, 4)))
    self.linear = nnx.Linear(16, 16, rngs=rngs)

  def __call__(self, x):
    return self.linear(x) @ self.w[...]


def test_bad_input():
  recipe = functools.partial(recipes.nearest, 'int4@channel', keep=())
  with pytest.raises(ValueError, match='multiplies with w outside'):
    lb.nnx.quantize(Loose(nnx.Rngs(0)), recipe(), [X])
  with pytest.raises(ValueError, match='match nothing'):
    lb.nnx.quantize(mlp(), recipes.nearest('int4@channel', keep=('head',)))
  with pytest.raises(ValueError, match='needs statistics'):
    lb.nnx.quantize(mlp(), recipes.gptq(keep=()))
  with pytest.raises(ValueError, match='empty'):
    lb.nnx.calibrate(mlp(), [])
  with pytest.raises(ValueError, match='quantized already'):
    lb.nnx.quantize(lb.nnx.quantize(mlp(), recipe()), recipe())
  with pytest.raises(ValueError, match='already'):
    lb.nnx.simulate(lb.nnx.simulate(mlp(), recipe()), recipe())
  with pytest.raises(ValueError, match='by Smooth, which .* no RMSNorm deco'):
    lb.nnx.quantize(mlp(), recipes.smoothquant(keep=()), [X])
  with pytest.raises(ValueError, match=r'params first \(Smooth\)'):
    lb.nnx.simulate(mlp(), recipes.smoothquant(keep=()))
  lsq = lb.quantize.Lsq(4)
  with pytest.raises(ValueError, match='representative inputs'):
    lb.nnx.simulate(mlp(), recipes.qat(lsq, None, keep=()))
  with pytest.raises(ValueError, match='takes no product'):
    lb.nnx.simulate(zoo(), recipes.pretraining(keep=()))
  bad = mlp()
  bad.up.kernel[...] = bad.up.kernel[...].at[0, 0].set(jnp.nan)
  with pytest.raises(ValueError, match='up/kernel holds NaN'):
    lb.nnx.quantize(bad, recipe())
  masked = nnx.Conv(4, 4, 3, mask=jnp.ones((3, 4, 4)), rngs=nnx.Rngs(0))
  with pytest.raises(ValueError, match='mask'):
    lb.nnx.quantize(nnx.Sequential(masked), recipe())
