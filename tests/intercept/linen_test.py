"""Record, simulate and serve on every kind of layer, and on whole models."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

import lowbit as lb
from lowbit import intercept, operators, solvers
from lowbit.models import decoder

X = jax.random.normal(jax.random.key(0), (2, 8, 8, 16))
LAYERS = {
  'dense': nn.Dense(24),
  'dense without bias': nn.Dense(24, use_bias=False),
  'general': nn.DenseGeneral((3, 8), axis=-1),
  'general over two axes': nn.DenseGeneral((5,), axis=(-2, -1)),
  'conv': nn.Conv(12, (3, 3)),
  'strided conv': nn.Conv(12, (3, 3), strides=2, padding='VALID'),
  'grouped conv': nn.Conv(16, (3, 3), feature_group_count=4),
  'einsum': nn.Einsum((16, 4, 6), '...d,dhk->...hk'),
}


class Wrapper(nn.Module):
  layer: nn.Module

  @nn.compact
  def __call__(self, x):
    return self.layer(x)


class ByHand(nn.Module):
  """Declares its weights itself, by the documented function."""

  @nn.compact
  def __call__(self, x):
    init = nn.initializers.lecun_normal()
    x = intercept.matmul(self, x, 'w1', init, 32)
    return intercept.matmul(self, jax.nn.relu(x), 'w2', init, 8)


class Unseen(nn.Module):
  """Declares its weights itself, and says nothing."""

  @nn.compact
  def __call__(self, x):
    x = nn.Dense(16, name='fine')(x)
    return x @ self.param('w', nn.initializers.ones, (16, 4))


def recipe(weight='int8@channel', activation=None, **rule):
  rules = (lb.Rule('.*', weight, activation, **rule),)
  return lb.Recipe('test', rules)


@pytest.mark.parametrize('name', LAYERS)
def test_simulate_is_fake_quantized_weights(name):
  model = Wrapper(LAYERS[name])
  params = model.init(jax.random.key(1), X)['params']
  got = lb.apply(model, params, X, recipe=recipe('int4@channel', 'int8@tensor'))
  kernel = params['layer']['kernel']
  axes = {'general over two axes': (0, 1), 'general': 0, 'einsum': 0}.get(
    name, tuple(range(kernel.ndim - 1))
  )
  quiet = {
    **params['layer'],
    'kernel': lb.fake_quantize(kernel, 'int4@channel', axes),
  }
  want = model.apply(
    {'params': {'layer': quiet}}, lb.fake_quantize(X, 'int8@tensor')
  )
  chex.assert_trees_all_close(got, want, atol=1e-6)


@pytest.mark.parametrize('name', LAYERS)
@pytest.mark.parametrize('activation', [None, 'int8@token'])
def test_serve_equals_simulate(name, activation):
  model = Wrapper(LAYERS[name])
  params = model.init(jax.random.key(1), X)['params']
  rules = recipe('int8@channel', activation)
  served = lb.quantize_model(model, params, rules, [X])
  assert not isinstance(served['layer']['kernel'], jax.Array)
  got = jax.jit(lambda p, x: lb.apply(model, p, x))(served, X)
  want = lb.apply(model, params, X, recipe=rules)
  chex.assert_trees_all_close(got, want, atol=1e-4)
  assert float(jnp.abs(got - model.apply({'params': params}, X)).max()) > 0


@pytest.mark.parametrize('name', [n for n in LAYERS if 'grouped' not in n])
def test_recorded_statistics_are_those_of_the_product(name):
  model = Wrapper(LAYERS[name])
  params = model.init(jax.random.key(1), X)['params']
  stats = lb.calibrate(model, params, [X, 2 * X])['layer/kernel']
  kernel = params['layer']['kernel']
  out = {'general': 2, 'einsum': 2}.get(name, 1)
  matrix = kernel.reshape(int(np.prod(kernel.shape[:-out])), -1)
  assert stats.hessian.shape == (matrix.shape[0],) * 2
  zero = jax.tree.map(jnp.zeros_like, params)
  zero['layer']['kernel'] = kernel
  y = model.apply({'params': zero}, jnp.concatenate([X, 2 * X]))
  y = y.reshape(-1, matrix.shape[1])
  assert float(stats.count) == len(y)
  # E|y|^2 = tr(W^T E[x x^T] W): the patches are in the kernel's own order.
  want = jnp.trace(matrix.T @ stats.hessian @ matrix)
  np.testing.assert_allclose(jnp.sum(y**2) / len(y), want, rtol=1e-3)


def test_gptq_reaches_convolutions_and_general_layers():
  for name in ('conv', 'general over two axes', 'general'):
    model = Wrapper(LAYERS[name])
    params = model.init(jax.random.key(1), X)['params']
    want = model.apply({'params': params}, X)
    errors = []
    for solver in (solvers.Nearest(), solvers.Gptq()):
      q = lb.quantize_model(
        model, params, recipe('int3@channel', solver=solver), [X]
      )
      errors.append(float(jnp.sum((lb.apply(model, q, X) - want) ** 2)))
    assert errors[1] < errors[0], name


def test_weights_by_hand():
  model, x = ByHand(), X[0, 0]
  params = model.init(jax.random.key(1), x)['params']
  want = model.apply({'params': params}, x)
  assert set(params) == {'w1', 'w2'}
  q = lb.quantize_model(model, params, recipe(), [x])
  chex.assert_trees_all_close(lb.apply(model, q, x), want, atol=0.1)
  chex.assert_trees_all_close(
    lb.apply(model, q, x), model.apply({'params': q}, x), atol=1e-6
  )
  simulated = lb.apply(model, params, x, recipe=recipe())
  chex.assert_trees_all_close(lb.apply(model, q, x), simulated, atol=1e-5)


def test_a_matmul_that_cannot_be_met_is_an_error():
  model, x = Unseen(), X[0, 0]
  params = model.init(jax.random.key(1), x)['params']
  with pytest.raises(ValueError, match=r'multiplies with w outside'):
    lb.quantize_model(model, params, recipe(), [x])


def test_coverage_reads_every_product():
  config = decoder.DecoderConfig(
    width=32, layers=2, heads=2, kv_heads=1, head_dim=16, hidden=48
  )
  tokens = jnp.zeros((1, 8), jnp.int32)
  for scan, tied, remat in ((0, 0, 0), (1, 0, 0), (0, 1, 0), (1, 0, 1)):
    c = decoder.DecoderConfig(
      **{
        **vars(config),
        'scan_layers': bool(scan),
        'tied': bool(tied),
        'remat': bool(remat),
      }
    )
    model = decoder.Decoder(c)
    params = model.init(jax.random.key(0), tokens)['params']
    run = lambda p, t, model=model: model.apply({'params': p}, t)
    found = intercept.matmuls(run, params, tokens)
    assert len(found) == 7 * (1 if scan else 2) + 1
    heads = {m.path for m in found if 'layers' not in m.path}
    assert heads == {'embed/embedding' if tied else 'head/kernel'}
    stats = lb.calibrate(model, params, [tokens])
    assert {m.path for m in found} <= set(stats)


def test_rules_that_match_nothing_and_weights_without_a_rule():
  model, x = ByHand(), X[0, 0]
  params = model.init(jax.random.key(1), x)['params']
  idle = lb.Recipe('idle', (lb.Rule('w3', 'int4'), lb.Rule('.*')))
  loose = lb.Recipe('loose', (lb.Rule('w1', 'int4'),))
  for run in (
    lambda r: lb.quantize_model(model, params, r, [x]),
    lambda r: lb.apply(model, params, x, recipe=r),
  ):
    with pytest.raises(ValueError, match=r"match nothing: \['w3'\].*w1, w2"):
      run(idle)
    with pytest.raises(ValueError, match='no rule for the matmul weights w2'):
      run(loose)
  with pytest.raises(ValueError, match='no regular expression'):
    lb.Rule('(')


def test_first_rule_wins():
  model, x = ByHand(), X[0, 0]
  params = model.init(jax.random.key(1), x)['params']
  rules = lb.Recipe('r', (lb.Rule('w1', 'int4'), lb.Rule('.*', 'int8')))
  q = lb.quantize_model(model, params, rules, [x])
  assert [str(q[w].q.spec) for w in ('w1', 'w2')] == [
    'int4@channel',
    'int8@channel',
  ]


def test_float_after_quantized_is_bit_equal():
  model, x = Wrapper(nn.Dense(24)), X
  params = model.init(jax.random.key(1), x)['params']
  run = jax.jit(lambda p, x: model.apply({'params': p}, x))
  before = run(params, x)
  with lb.intercept(recipe('int3@channel')):
    quantized = run(params, x)
  with lb.intercept(recipe('int2@channel')):
    coarser = run(params, x)
  chex.assert_trees_all_equal(run(params, x), before)
  assert float(jnp.abs(quantized - before).max()) > 1e-3
  assert float(jnp.abs(quantized - coarser).max()) > 1e-3


def test_precision_and_preferred_type_reach_the_product():
  seen = []

  def dot(*args, **kwargs):
    seen.append(kwargs)
    return jax.lax.dot_general(*args, **kwargs)

  model = Wrapper(nn.Dense(4, precision='highest', dot_general=dot))
  params = model.init(jax.random.key(1), X)['params']
  seen.clear()
  lb.apply(model, params, X, recipe=recipe())
  assert seen
  assert all('HIGHEST' in str(k['precision']).upper() for k in seen)
  served = lb.quantize_model(model, params, recipe(), [X])
  text = str(jax.make_jaxpr(lambda p: lb.apply(model, p, X))(served))
  assert 'HIGHEST' in text
  half = Wrapper(nn.Dense(4, dtype=jnp.bfloat16))
  assert lb.apply(half, served, X).dtype == jnp.bfloat16


def test_vmap_grad_and_remat():
  model = Wrapper(nn.Dense(24))
  params = model.init(jax.random.key(1), X)['params']
  served = lb.quantize_model(model, params, recipe(), [X])
  got = jax.vmap(lambda x: lb.apply(model, served, x))(X)
  chex.assert_trees_all_close(got, lb.apply(model, served, X), atol=1e-6)
  loss = lambda p: lb.apply(model, p, X, recipe=recipe()).sum()
  grads = jax.grad(loss)(params)
  chex.assert_trees_all_close(jax.grad(jax.checkpoint(loss))(params), grads)
  assert all(float(jnp.abs(g).min()) > 0 for g in jax.tree.leaves(grads))


def test_embedding_tables_are_quantized_when_asked():
  model = nn.Embed(32, 16)
  params = model.init(jax.random.key(0), jnp.zeros(3, jnp.int32))['params']
  ids = jnp.asarray([1, 5, 31])
  q = lb.quantize_model(model, params, recipe('int8@channel'), [ids])
  want = lb.fake_quantize(params['embedding'], 'int8@channel')[ids]
  chex.assert_trees_all_close(lb.apply(model, q, ids), want, atol=1e-6)
  with lb.intercept(None, 'serve'):
    logits = model.apply({'params': q}, X[0, 0], method='attend')
  table = lb.fake_quantize(params['embedding'], 'int8@channel')
  chex.assert_trees_all_close(logits, X[0, 0] @ table.T, atol=1e-5)


def test_packed_leaves_are_served():
  model = Wrapper(nn.Dense(24))
  params = model.init(jax.random.key(1), X)['params']
  served = lb.quantize_model(model, params, recipe('int3@g8'), [X])
  packed = jax.tree.map(
    lambda op: op.pack(),
    served['layer']['kernel'],
    is_leaf=lambda x: isinstance(x, operators.Coded),
  )
  other = {'layer': {**served['layer'], 'kernel': packed}}
  chex.assert_trees_all_equal(
    lb.apply(model, other, X), lb.apply(model, served, X)
  )


def test_bad_modes():
  with (
    pytest.raises(ValueError, match='`mode` must be'),
    lb.intercept(None, 'train'),
  ):
    raise AssertionError
  with (
    pytest.raises(ValueError, match='`recipe` goes with'),
    lb.intercept(None),
  ):
    raise AssertionError
