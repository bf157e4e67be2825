"""Estimators of a spec's rounding: values, exact gradients, what they refuse.

Those with parameters of their own are in learned_test.py.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

import lowbit as lb
from lowbit import intercept, quantize
from lowbit.quantize import estimators

UNIT = lb.Spec('int4', 'tensor', quantize.Unit())
KEY = jax.random.key(3)
X = 4 * np.asarray(jax.random.normal(jax.random.key(0), (16, 64)))
C = np.asarray(jax.random.normal(jax.random.key(1), X.shape))


def pull(spec, estimator, key=None, x=X):
  """y, and the gradient of sum(c y)."""
  fake = functools.partial(
    lb.fake_quantize, spec=spec, key=key, estimator=estimator
  )
  y, back = jax.vjp(fake, jnp.asarray(x))
  return np.asarray(y), np.asarray(back(jnp.asarray(C))[0])


def saturates(x):
  return np.abs(x) > 7


def test_straight_through_and_clipped():
  want = np.clip(np.rint(X), -7, 7)
  y, dx = pull(UNIT, lb.straight_through)
  np.testing.assert_array_equal(y, want)
  np.testing.assert_array_equal(dx, C)
  y, dx = pull(UNIT, lb.clipped)
  np.testing.assert_array_equal(y, want)
  np.testing.assert_array_equal(dx, np.where(saturates(X), 0, C))
  assert saturates(X).any()


@pytest.mark.parametrize('backward', [lb.straight_through, lb.clipped])
def test_stochastic_rounds_at_random_and_passes_the_gradient(backward):
  estimator = quantize.Stochastic(backward)
  y, dx = pull(UNIT, estimator, KEY)
  named = lb.fake_quantize(
    jnp.asarray(X), 'int4@tensor:unit~stochastic', key=KEY
  )
  np.testing.assert_array_equal(y, named)
  assert (y != np.clip(np.rint(X), -7, 7)).any()
  cut = saturates(X) & (backward is lb.clipped)
  np.testing.assert_array_equal(dx, np.where(cut, 0, C))


def test_stochastic_gradients_are_those_of_the_mean():
  """d E[y] / dx = 1 for what lies inside: the estimator is unbiased."""
  x = jnp.linspace(-6.9, 6.9, 64)
  keys = jax.random.split(KEY, 4000)
  fake = lambda key: lb.fake_quantize(
    x, UNIT, key=key, estimator=quantize.Stochastic()
  )
  mean = jnp.mean(jax.vmap(fake)(keys), axis=0)
  assert float(jnp.abs(mean - x).max()) < 5 * 0.5 / np.sqrt(4000)


@pytest.mark.parametrize('temperature', [0.05, 0.2, 1.0, 30.0])
def test_staircase_has_the_gradient_of_soft_round(temperature):
  y, dx = pull(UNIT, quantize.Staircase(temperature))
  np.testing.assert_array_equal(y, np.clip(np.rint(X), -7, 7))
  soft = lambda v: quantize.soft_round(v, temperature)
  by_autodiff = jax.vjp(soft, jnp.asarray(X))[1](jnp.asarray(C))[0]
  x, k = np.asarray(X, np.float64), 1 / temperature
  u = x - np.floor(x) - 0.5
  by_hand = C * k / 2 / np.cosh(k * u) ** 2 / np.tanh(k / 2)
  near = {'rtol': 2e-3, 'atol': 2e-4}
  np.testing.assert_allclose(by_autodiff, by_hand, **near)
  outside = saturates(X)
  np.testing.assert_allclose(dx, np.where(outside, 0, by_hand), **near)
  np.testing.assert_array_equal(dx[outside], 0)


def test_soft_round_goes_from_the_identity_to_rounding():
  v = jnp.linspace(-3.0, 3.0, 601)
  np.testing.assert_allclose(quantize.soft_round(v, 50.0), v, atol=1e-4)
  away = jnp.abs(v - jnp.floor(v) - 0.5) > 0.04
  cold = quantize.soft_round(v, 0.01)
  np.testing.assert_allclose(cold[away], jnp.rint(v)[away], atol=2e-3)
  whole = jnp.arange(-3.0, 4.0)
  np.testing.assert_allclose(quantize.soft_round(whole, 0.3), whole, atol=1e-6)
  # The mean gradient over a step is 1, whatever the temperature.
  mean = (quantize.soft_round(jnp.float32(2), 0.2)) / 2
  assert float(mean) == pytest.approx(1)


@pytest.mark.parametrize(
  'spec, step',
  [
    ('int4@g16', 1),
    ('int4z@g16', 1),
    ('int1@g16', 2),
    ('ternary@channel', 1),
    ('linear0_4z@channel', 1 / 16),
  ],
)
def test_staircase_counts_in_the_steps_of_any_even_format(spec, step):
  staircase = quantize.Staircase(0.2)
  y, dx = pull(spec, staircase)
  q = lb.quantize(jnp.asarray(X), spec)
  scale = np.asarray(quantize.wide_scales(q)[0], np.float64)
  u = 0.5 - np.abs(X - y) / (scale * step)
  want = C * 5 / 2 / np.cosh(5 * u) ** 2 / np.tanh(5 / 2)
  np.testing.assert_allclose(dx, want, rtol=3e-3, atol=1e-4)


@pytest.mark.parametrize(
  'spec', ['nf4@g16', 'mxfp4', 'e4m3', 'bf16', 'log4@channel', 'bitmod4@g32']
)
def test_staircase_refuses_levels_that_do_not_lie_evenly(spec):
  for build in (
    lambda: lb.fake_quantize(
      jnp.asarray(X), spec, estimator=quantize.Staircase()
    ),
    lambda: lb.Rule('.*', spec, estimator=quantize.Staircase()),
    lambda: lb.Rule(
      '.*',
      quantize.Progressive(((0, None), (5, spec))),
      estimator=quantize.Staircase(),
    ),
  ):
    with pytest.raises(ValueError, match='do not lie evenly.*int4@g64'):
      build()


X4 = jnp.ones((4, 4))


@pytest.mark.parametrize(
  'build, hint',
  [
    (lambda: quantize.Staircase(0.0), 'temperature.*clipped'),
    (lambda: quantize.Staircase(1e9), 'temperature'),
    (lambda: quantize.Stochastic(quantize.Staircase()), 'straight_through or'),
    (
      lambda: lb.fake_quantize(
        X4, 'int4~floor', estimator=quantize.Staircase()
      ),
      'steps where rounding to nearest',
    ),
    (
      lambda: lb.fake_quantize(
        X4, 'int4~floor', key=KEY, estimator=quantize.Stochastic()
      ),
      'Leave out one',
    ),
    (
      lambda: lb.fake_quantize(X4, 'int4', estimator=quantize.Stochastic()),
      'key=jax.random.key',
    ),
    (
      lambda: lb.Rule('.*', quantize.Lsq(4), estimator=lb.clipped),
      'bring their own gradient',
    ),
    (lambda: lb.Rule('.*', estimator=lb.clipped), 'there is none'),
    (
      lambda: quantize.Static('int8@tensor~stochastic'),
      "no key reaches it. Drop '~stochastic'",
    ),
    (lambda: quantize.Lsq(1, block='g64'), 'use a spec, such as int4@g64'),
    (
      lambda: lb.fake_quantize(X4, 'bitmod4@g32', estimator=lb.clipped),
      'side data',
    ),
  ],
)
def test_what_an_estimator_cannot_serve(build, hint):
  with pytest.raises(ValueError, match=hint):
    build()


@pytest.mark.parametrize('kind', [quantize.Lsq, quantize.Pams, quantize.Pact])
@pytest.mark.parametrize('bits', ['nf4', lb.formats.get('nf4'), 4.0, True])
def test_learned_steps_serve_no_table(kind, bits):
  with pytest.raises(TypeError, match='levels lie evenly.*nf4@g64'):
    kind(bits)


def test_rules_use_them():
  layer = nn.Dense(8, use_bias=False)
  x = jax.random.normal(KEY, (5, 16))
  params = layer.init(KEY, x)['params']

  def gradient(estimator, weight='int3@channel', **more):
    r = lb.Recipe('r', (lb.Rule('.*', weight, estimator=estimator),))
    loss = lambda p: lb.apply(layer, p, x, recipe=r, **more).sum()
    return jax.grad(loss)(params)['kernel']

  plain = gradient(lb.straight_through)
  w = params['kernel']
  slope = jax.vjp(
    lambda w: lb.fake_quantize(
      w, 'int3@channel', 0, estimator=quantize.Staircase()
    ),
    w,
  )[1](jnp.ones_like(w))[0]
  got = gradient(quantize.Staircase())
  np.testing.assert_allclose(got, plain * slope, rtol=1e-5)
  noisy = quantize.Stochastic()
  for weight in ('int3@channel', quantize.Progressive(((0, 'int3@channel'),))):
    more = {'step': jnp.int32(3)} if not isinstance(weight, str) else {}
    with pytest.raises(ValueError, match="rngs={'lowbit'"):
      gradient(noisy, weight, **more)
    got = gradient(noisy, weight, rngs={intercept.STREAM: KEY}, **more)
    np.testing.assert_allclose(got, plain, rtol=1e-5)


def test_even_steps():
  assert estimators.even_step(lb.formats.get('int4')) == 1
  assert estimators.even_step(lb.formats.get('int1')) == 2
  assert estimators.even_step(lb.formats.get('linear0_4')) == 1 / 16
