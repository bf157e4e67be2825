"""Formats as data give what recipes give, in one program."""

import chex
import jax
import jax.numpy as jnp
import pytest
from flax import linen as nn

import lowbit as lb
from lowbit import intercept
from lowbit.intercept import linen, traced
from lowbit.quantize import grid

X = jax.random.normal(jax.random.key(0), (2, 6, 32))
SPECS = ('e2m1@g16', 'e4m3@g16', 'int4@g16', 'e1m1@g16')


def setup(specs):
  layer = nn.Dense(24)
  params = layer.init(jax.random.key(1), X)['params']
  layout = traced.Layout(**{k: grid.layout(s) for k, s in specs.items()})
  formats = {k: traced.format_of(s) for k, s in specs.items()}
  return layer, params, layout, formats


def run(layer, params, layout, formats, x=X):
  with linen.handling(traced.handler(layout, formats)):
    return layer.apply({'params': params}, x)


@pytest.mark.parametrize('weight', SPECS)
def test_the_forward_pass_is_that_of_a_recipe(weight):
  args = setup({'weight': weight, 'activation': 'int8@g16'})
  rule = lb.Rule('.*', weight, 'int8@g16')
  want = lb.apply(args[0], args[1], X, recipe=lb.Recipe('r', (rule,)))
  chex.assert_trees_all_equal(run(*args), want)


def test_gradients_are_those_of_a_recipe_with_reuse():
  specs = {
    'weight': 'e4m3@tensor',
    'activation': 'int8@tensor',
    'gradient': 'e5m2@tensor',
  }
  layer, params, layout, formats = setup(specs)
  c = jax.random.normal(jax.random.key(2), (2, 6, 24))
  how = intercept.Backward(
    dx_gradient='e5m2@tensor', dw_gradient='e5m2@tensor', reuse=True
  )
  rule = lb.Rule('.*', specs['weight'], specs['activation'], backward=how)
  recipe = lb.Recipe('r', (rule,))

  def pull(f):
    return jax.grad(lambda p, x: jnp.sum(c * f(p, x)), argnums=(0, 1))(
      params, X
    )

  want = pull(lambda p, x: lb.apply(layer, p, x, recipe=recipe))
  got = pull(lambda p, x: run(layer, p, layout, formats, x))
  chex.assert_trees_all_close(
    got[0]['kernel'], want[0]['kernel'], rtol=1e-6, atol=1e-6
  )
  chex.assert_trees_all_close(got[1], want[1], rtol=1e-6, atol=1e-6)


def test_formats_stack_and_do_not_compile_again():
  layer, params, layout, _ = setup({'weight': 'int4@g16'})
  stack = lambda names: jax.tree.map(
    lambda *a: jnp.stack(a), *[traced.format_of(n) for n in names]
  )
  traces = []

  @jax.jit
  def sweep(formats):
    traces.append(None)
    one = lambda f: run(layer, params, layout, {'weight': f})
    return jax.vmap(one)(formats)

  got = sweep(stack(SPECS))
  sweep(stack(SPECS[::-1]))
  assert len(traces) == 1
  for y, name in zip(got, SPECS):
    one = run(layer, params, layout, {'weight': traced.format_of(name)})
    chex.assert_trees_all_close(y, one, rtol=1e-5, atol=1e-6)
  # Off is float, exactly.
  off = run(layer, params, layout, {'weight': traced.format_of('')})
  chex.assert_trees_all_equal(off, layer.apply({'params': params}, X))


def test_kept_weights_stay_in_float():
  layer, params, layout, formats = setup({'weight': 'int2@g16'})
  kept = traced.Layout(layout.weight, keep=('kernel',))
  chex.assert_trees_all_equal(
    run(layer, params, kept, formats), layer.apply({'params': params}, X)
  )
  assert jnp.any(run(layer, params, layout, formats) != X @ params['kernel'])


@pytest.mark.parametrize(
  'spec, hint',
  [
    ('nf4@g16', 'not a float grid'),
    ('int4z@g16', 'not a float grid'),
    ('e2m1z@g16', 'no zero point'),
    ('int4@g16~stochastic', 'round to nearest'),
    ('int4@tensor:entropy', 'entropy'),
    ('int4@q3', 'Unknown block'),
  ],
)
def test_formats_that_cannot_be_data(spec, hint):
  with pytest.raises(ValueError, match=hint):
    traced.format_of(spec)
