"""What optimizers refuse, and what the error says."""

import jax
import jax.numpy as jnp
import pytest

from lowbit import optim

W = {'w': jnp.ones((64, 64))}
SMALL = {'w': jnp.ones((4, 5))}


@pytest.mark.parametrize('first', ['udynamic8@g256', 'linear0_4@g128', 'e8m0'])
def test_a_first_moment_has_a_sign(first):
  with pytest.raises(
    ValueError, match='`first` may be negative.*Use a signed format'
  ):
    optim.Moments(first, 'udynamic8@g256')
  with pytest.raises(ValueError, match='no negative values'):
    optim.momentum8bit(1e-3, moments=optim.Moments(optim.RankOne('de0_4')))


def test_a_zero_point_is_a_sign_too():
  optim.Moments('int8z@g256')


@pytest.mark.parametrize(
  'second, below',
  [
    ('int8@g256', 'below 0.00394 of its largest value an entry becomes 0'),
    ('udynamic4@g128', 'below 0.00163 of its largest'),
    (optim.RankOne('udynamic4'), 'udynamic4: below 0.00163 of its largest'),
    (optim.Factored(optim.Flat('int4@g128')), 'int4: below 0.0714'),
  ],
)
def test_a_second_moment_that_reaches_zero(second, below):
  with pytest.raises(ValueError, match=f'{below}.*linear0_4, de0_4'):
    optim.Moments('dynamic8@g256', second)


@pytest.mark.parametrize(
  'name', ['linear0_4@g128:bf16', 'de0_4@g128:p99', 'de0_4@g128~floor']
)
def test_without_a_zero_only_plain_scales_hold_a_block_of_zeros(name):
  with pytest.raises(ValueError, match=f'`spec` {name}.*plain float32 absmax'):
    optim.Flat(name)


def test_a_parameter_smaller_than_a_block_is_one_block_or_is_refused():
  moments = lambda mark: optim.Moments(
    f'dynamic8{mark}@g256', f'udynamic8{mark}@g256', min_size=1
  )
  state = optim.scale_by_adam(moments=moments('')).init(SMALL)
  assert state.mu['w'].codes.shape == (20,)
  assert state.mu['w'].scale.shape == (1,)
  with pytest.raises(ValueError, match="does not divide.*drop the '!'"):
    optim.scale_by_adam(moments=moments('!')).init(SMALL)
  # By default it is small enough to stay in float.
  assert optim.scale_by_adam().init(SMALL).mu['w'].dtype == jnp.float32


STATES = {
  'adam': (
    lambda spec: optim.scale_by_adam(
      moments=optim.Moments(spec, 'udynamic8@g256')
    )
  ),
  'momentum': lambda spec: optim.trace(0.9, moments=optim.Moments(spec)),
  'lion': lambda spec: optim.scale_by_lion(moments=optim.Moments(spec)),
  'guarded': lambda spec: optim.skip_nonfinite(
    optim.trace(0.9, moments=optim.Moments(spec))
  ),
}


@pytest.mark.parametrize('name', STATES)
@pytest.mark.parametrize('saved', ['int8@g256', 'dynamic8@g64', 'int4@g256'])
def test_a_state_of_another_spec_is_refused(name, saved):
  make = STATES[name]
  state = make(saved).init(W)
  step = jax.jit(make('dynamic8@g256').update)
  with pytest.raises(
    ValueError, match=f'holds {saved}, where dynamic8@g256.*begin with `init`'
  ):
    step(W, state)


def test_noise_has_no_default_key():
  with pytest.raises(ValueError, match='`seed` is needed.*seed=0'):
    optim.adamw8bit(1e-3, moments=optim.Moments('int8@g64~stochastic', 'e5m2'))
  with pytest.raises(ValueError, match='`key` is needed'):
    optim.stochastic_weights(None)


def test_a_guarded_step_with_nan_says_where_and_is_undone():
  tx = optim.skip_nonfinite(optim.adamw8bit(1e-2))
  params = {'a': jnp.ones((64, 64)), 'b': jnp.ones(3)}
  step = jax.jit(tx.update)
  good = jax.tree.map(jnp.ones_like, params)
  _, state = step(good, tx.init(params), params)
  bad = good | {'a': good['a'].at[5, 6].set(jnp.nan)}
  for count in (1, 2):
    u, after = step(bad, state, params)
    assert jax.tree.all(jax.tree.map(lambda x: bool((x == 0).all()), u))
    assert jax.tree.leaves(after.inner)[0] == 1  # Steps that counted.
    assert int(after.skipped) == count
    assert jax.tree.map(int, after.bad) == {'a': count, 'b': 0}
    state = after
