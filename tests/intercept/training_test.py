"""Quantized training: forward and backward products, schedules, state."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

import lowbit as lb
from lowbit import intercept, quantize
from lowbit.models import decoder

X = jax.random.normal(jax.random.key(0), (2, 6, 32))


def recipe(weight=None, activation=None, ramp=None, **rule):
  return lb.Recipe('r', (lb.Rule('.*', weight, activation, **rule),), ramp=ramp)


def setup(layer, x=X):
  params = layer.init(jax.random.key(1), x)['params']
  y = layer.apply({'params': params}, x)
  return params, jax.random.normal(jax.random.key(2), y.shape)


def pull(layer, params, r, c, x=X, **kwargs):
  """Gradients of sum(c y) in params and x."""
  loss = lambda p, x: jnp.sum(c * lb.apply(layer, p, x, recipe=r, **kwargs))
  return jax.grad(loss, argnums=(0, 1))(params, x)


def test_a_dense_layer_by_hand():
  layer, how = (
    nn.Dense(48),
    intercept.Backward('e5m2@b16', 'e4m3@b8', 'int8@b4', 'int4@b4'),
  )
  params, c = setup(layer)
  got_p, got_x = pull(
    layer, params, recipe('mxfp8_e4m3', 'int8@token', backward=how), c
  )
  w, fq = params['kernel'], quantize.fake_quantize
  want_x = fq(c, 'e5m2@b16', -1) @ fq(w, 'e4m3@b8', -1).T
  chex.assert_trees_all_close(got_x, want_x, atol=1e-4)
  # Tokens are the leading axes; blocks run along the last of them.
  x_dw = fq(X, 'int4@b4', (0, 1)).reshape(12, 32)
  dy_dw = fq(c, 'int8@b4', (0, 1)).reshape(12, 48)
  chex.assert_trees_all_close(got_p['kernel'], x_dw.T @ dy_dw, atol=1e-4)
  chex.assert_trees_all_close(got_p['bias'], c.sum((0, 1)), atol=1e-5)


LAYERS = {
  'dense': (nn.Dense(16), X),
  'general': (nn.DenseGeneral((4, 4), axis=(-2, -1)), X),
  'einsum': (nn.Einsum((32, 4, 6), '...d,dhk->...hk'), X),
  'conv': (nn.Conv(8, (3,)), X),
  'grouped conv': (nn.Conv(8, (3,), feature_group_count=4), X),
}


@pytest.mark.parametrize('name', LAYERS)
def test_wide_backward_formats_change_nothing(name):
  layer, x = LAYERS[name]
  params, c = setup(layer, x)
  wide = intercept.Backward('fp32', 'fp32', 'fp32', 'fp32')
  got = pull(layer, params, recipe(backward=wide), c, x)
  want = jax.grad(
    lambda p, x: jnp.sum(c * layer.apply({'params': p}, x)), argnums=(0, 1)
  )(params, x)
  chex.assert_trees_all_close(got, want, atol=2e-5)


@pytest.mark.parametrize('name', LAYERS)
def test_each_operand_is_quantized_by_its_own_field(name):
  layer, x = LAYERS[name]
  params, c = setup(layer, x)
  plain_p, plain_x = pull(layer, params, recipe(), c, x)
  for field in ('dx_gradient', 'dx_weight', 'dw_gradient', 'dw_input'):
    how = intercept.Backward(**{field: 'int2@b4'})
    got_p, got_x = pull(layer, params, recipe(backward=how), c, x)
    same_x = bool(jnp.all(got_x == plain_x))
    same_w = bool(jnp.all(got_p['kernel'] == plain_p['kernel']))
    assert (same_x, same_w) == (field[:2] == 'dw', field[:2] == 'dx'), field


def test_reuse_is_exact_where_it_is_allowed_and_refused_elsewhere():
  layer = nn.Dense(48)
  params, c = setup(layer)
  for spec in ('int8@tensor', 'int8@t8x8'):
    again = intercept.Backward(
      'int8@tensor', spec, 'int8@tensor', 'int8@tensor'
    )
    reuse = intercept.Backward('int8@tensor', None, 'int8@tensor', reuse=True)
    r = recipe(spec, 'int8@tensor', backward=again)
    want = pull(layer, params, r, c)
    got = pull(layer, params, recipe(spec, 'int8@tensor', backward=reuse), c)
    chex.assert_trees_all_close(got, want, atol=1e-5)
  for spec in ('int8@channel', 'mxfp8_e4m3', 'int8@t8x16'):
    with pytest.raises(ValueError, match='reuse'):
      recipe(spec, backward=reuse)
  with pytest.raises(ValueError, match='reuse'):
    intercept.Backward(dx_weight='int8@tensor', reuse=True)


def test_stochastic_gradients_are_unbiased_and_need_a_key():
  layer = nn.Dense(48)
  params, c = setup(layer)
  r = recipe(backward=intercept.Backward('int4@channel~stochastic'))
  with pytest.raises(ValueError, match="rngs={'lowbit'"):
    pull(layer, params, r, c)
  grad = lambda key: pull(layer, params, r, c, rngs={'lowbit': key})[1]
  draws = jax.vmap(grad)(jax.random.split(jax.random.key(7), 400))
  want = c @ params['kernel'].T
  spread = draws.std(0) / 20
  z = np.asarray((draws.mean(0) - want) / jnp.maximum(spread, 1e-6))
  assert np.abs(z).max() < 5.2  # 384 means; false alarm 1e-4.
  assert float(draws.std(0).min()) > 0


def test_weight_and_input_get_different_keys():
  layer = nn.Dense(32, use_bias=False)
  params = {'kernel': jnp.full((32, 32), 0.5)}
  r = recipe('int2@tensor~stochastic', 'int2@tensor~stochastic')
  x = jnp.full((32, 32), 0.5).at[0, 0].set(1.0)
  seen = []
  handler = intercept.simulate(r)

  def spy(call):
    own = lambda w, x, rest=None: seen.append((w, x)) or call.own(w, x)
    import dataclasses

    return handler(dataclasses.replace(call, own=own))

  with intercept.handling(spy):
    layer.apply({'params': params}, x, rngs={'lowbit': jax.random.key(0)})
  w, x = seen[0]
  assert bool(jnp.any(w != x))


def small_decoder(**changes):
  return decoder.Decoder(
    decoder.DecoderConfig(
      width=32,
      layers=2,
      heads=2,
      kv_heads=1,
      head_dim=16,
      hidden=32,
      **changes,
    )
  )


def test_a_decoder_trains_unrolled_and_in_scan_and_remat_alike():
  model = small_decoder()
  scanned = small_decoder(scan_layers=True, remat=True)
  tokens = jnp.arange(32).reshape(2, 16)
  params = model.init(jax.random.key(0), tokens)['params']
  how = intercept.Backward(
    'mxfp8_e5m2', 'mxfp8_e4m3', 'mxfp8_e5m2', 'mxfp8_e4m3'
  )
  learned = lb.Rule('.*', quantize.Lsq(8), quantize.Lsq(8), backward=how)
  r = lb.Recipe('mx', (lb.Rule('embed/.*'), learned))
  q = lb.init_quantizers(model, params, r, tokens)

  def gradients(model, params, q):
    loss = lambda p, q: jnp.mean(
      lb.apply(model, p, tokens, recipe=r, quantizers=q) ** 2
    )
    return jax.jit(jax.grad(loss, argnums=(0, 1)))(params, q)

  grads, q_grads = gradients(model, params, q)
  stacked = jax.tree.map(jnp.asarray, decoder.stack(params))
  q_stacked = lb.init_quantizers(scanned, stacked, r, tokens)
  chex.assert_trees_all_close(q_stacked, decoder.stack(q), rtol=1e-4)
  got, q_got = gradients(scanned, stacked, q_stacked)
  flat = lambda t: jnp.concatenate([g.ravel() for g in jax.tree.leaves(t)])
  cosine = lambda a, b: jnp.dot(a, b) / jnp.sqrt(jnp.dot(a, a) * jnp.dot(b, b))
  # A rounding that tips one way or the other moves single elements.
  assert float(cosine(flat(got), flat(decoder.stack(grads)))) > 0.9999
  assert float(cosine(flat(q_got), flat(decoder.stack(q_grads)))) > 0.999
  plain = jax.grad(lambda p: jnp.mean(model.apply({'params': p}, tokens) ** 2))
  assert 0.9 < float(cosine(flat(grads), flat(plain(params)))) < 0.999
  assert all(bool(jnp.any(g != 0)) for g in jax.tree.leaves(q_grads))


def test_static_scales_are_those_of_the_calibration_batch():
  layer = nn.Dense(16)
  params, _ = setup(layer)
  r = recipe(None, quantize.Static('int8@tensor'))
  q = lb.init_quantizers(layer, params, r, X)
  got = lb.apply(layer, params, X, recipe=r, quantizers=q)
  want = lb.apply(layer, params, X, recipe=recipe(None, 'int8@tensor'))
  chex.assert_trees_all_close(got, want, atol=1e-6)
  big = lb.apply(layer, params, 3 * X, recipe=r, quantizers=q)
  top = float(jnp.abs(X).max())
  clipped = layer.apply({'params': params}, jnp.clip(3 * X, -top, top))
  chex.assert_trees_all_close(big, clipped, atol=0.1)
  with pytest.raises(ValueError, match='init_quantizers'):
    lb.apply(layer, params, X, recipe=r)


def test_delayed_scales_lag_behind():
  layer = nn.Dense(16)
  params, _ = setup(layer)
  r = recipe(None, quantize.Delayed('int8@tensor', history=2))
  run = lambda x, v: lb.apply(
    layer, params, x, recipe=r, variables=v, mutable=['lowbit_delayed']
  )
  exact = lambda x: lb.apply(
    layer, params, x, recipe=recipe(None, 'int8@tensor')
  )
  y, state = run(X, {})
  chex.assert_trees_all_close(y, exact(X), atol=1e-6)
  loud, state = run(10 * X, state)  # Still the scale of X.
  assert float(jnp.abs(loud - exact(10 * X)).max()) > 1
  after, state = run(10 * X, state)
  chex.assert_trees_all_close(after, exact(10 * X), atol=1e-5)
  _, state = run(X, state)
  _, state = run(X, state)
  quiet, _ = run(X, state)  # The loud steps are forgotten.
  chex.assert_trees_all_close(quiet, exact(X), atol=1e-6)


def test_progressive_formats_and_ramps_follow_the_step():
  layer = nn.Dense(16)
  params, _ = setup(layer)
  stages = quantize.Progressive(
    ((0, None), (10, 'int8@channel'), (20, 'int2@channel'))
  )
  at = jax.jit(
    lambda step: lb.apply(layer, params, X, recipe=recipe(stages), step=step)
  )
  fixed = lambda w: lb.apply(layer, params, X, recipe=recipe(w))
  for step, spec in (
    (0, None),
    (9, None),
    (10, 'int8@channel'),
    (99, 'int2@channel'),
  ):
    chex.assert_trees_all_close(at(step), fixed(spec), atol=1e-6)
  ramp = recipe('int2@channel', ramp=quantize.Ramp(10, 20))
  at = lambda step: lb.apply(layer, params, X, recipe=ramp, step=step)
  half = (fixed(None) + fixed('int2@channel')) / 2
  chex.assert_trees_all_close(at(15), half, atol=1e-5)
  chex.assert_trees_all_close(at(5), fixed(None), atol=1e-6)
  chex.assert_trees_all_close(at(20), fixed('int2@channel'), atol=1e-6)


@pytest.mark.parametrize(
  ('build', 'hint'),
  [
    (lambda: quantize.Progressive(((5, None),)), 'begin at step 0'),
    (lambda: quantize.Progressive(((0, None), (0, 'int8'))), 'rise'),
    (
      lambda: quantize.Progressive(((0, None), (20, 'int8'), (10, 'int4'))),
      r'`stages`.*rise; got steps \[0, 20, 10\]. Sort',
    ),
    (lambda: quantize.Progressive(()), r'begin at step 0.*\[\]'),
    (lambda: quantize.Ramp(5, 5), 'begin < end'),
    (lambda: quantize.Ramp(9, 5), 'got 9 and 5. For a jump use Progressive'),
    (
      lambda: lb.apply(
        nn.Dense(4),
        nn.Dense(4).init(jax.random.key(0), X)['params'],
        X,
        recipe=recipe(quantize.Delayed('int8@tensor~stochastic')),
      ),
      "kernel rounds stochastically, and there is no key. Pass rngs={'lowbit'",
    ),
    (lambda: quantize.Static('int8@channel'), '@tensor'),
    (lambda: quantize.Delayed('int8@tensor', 0), 'positive'),
    (lambda: intercept.simulate(recipe(ramp=quantize.Ramp(0, 5))), 'step'),
    (
      lambda: lb.apply(
        nn.Dense(4),
        nn.Dense(4).init(jax.random.key(0), X)['params'],
        X,
        recipe=recipe(quantize.Progressive(((0, 'int8'),))),
      ),
      'step',
    ),
  ],
)
def test_bad_input(build, hint):
  with pytest.raises(ValueError, match=hint):
    build()


@pytest.mark.parametrize(
  'build',
  [
    lambda: quantize.Progressive(((0, None), (1.5, 'int8'))),
    lambda: quantize.Ramp(0, 5.0),
    lambda: quantize.Ramp(True, 5),
  ],
)
def test_schedules_count_whole_steps(build):
  with pytest.raises(TypeError, match='whole steps, got .*Write ints'):
    build()


def test_rules_and_products_that_do_not_fit_name_all_paths():
  model = nn.Sequential([nn.Dense(8), nn.Dense(8)])
  params, _ = setup(model)
  paths = 'layers_0/kernel, layers_1/kernel'
  idle = lb.Recipe('r', (lb.Rule('.*0/kernel'), lb.Rule('x'), lb.Rule('.*')))
  loose = lb.Recipe('r', (lb.Rule('.*z', 'int8'),))
  for r, hint in ((idle, r"match nothing: \['x'\]"), (loose, 'no rule for')):
    with pytest.raises(ValueError, match=f'{hint}.*{paths}'):
      lb.apply(model, params, X, recipe=r)


def test_one_trace_meets_every_layer_once(monkeypatch):
  """A training step is not traced again to see what a recipe matches."""
  calls = []
  model, r = nn.Dense(8), recipe('int8@channel')
  params, _ = setup(model)
  apply = nn.Dense.apply
  counted = lambda self, *a, **k: calls.append(1) or apply(self, *a, **k)
  monkeypatch.setattr(nn.Dense, 'apply', counted)
  jax.jit(lambda p, x: lb.apply(model, p, x, recipe=r)).lower(params, X)
  assert len(calls) == 2  # The model, and the layer's own product within.


def test_layers_that_jax_has_traced_before_still_count():
  layer = nn.jit(nn.Dense)(8)
  params, _ = setup(layer)
  r = recipe('int8@channel')
  first, again = (lb.apply(layer, params, X, recipe=r) for _ in range(2))
  chex.assert_trees_all_equal(first, again)
