"""Any optimizer's state in few bits, skipped steps, and counts."""

import chex
import jax
import jax.numpy as jnp
import optax
import pytest

import lowbit as lb
from lowbit import optim
from tests.optim import cases

P = {'w': jnp.ones((64, 64)), 'b': jnp.ones(64)}


def test_quantize_state_stores_what_is_large():
  tx = optim.quantize_state(optax.scale_by_adam())
  state = tx.init(P)
  assert isinstance(state.inner.mu['w'], lb.QTensor)
  assert str(state.inner.nu['w'].spec) == 'udynamic8@g256'
  assert state.inner.mu['b'].shape == (64,)
  assert state.inner.count.dtype == jnp.int32


def test_quantize_state_of_adam_is_adam8bit():
  tight = {'rtol': 1e-5, 'atol': 1e-7}
  g = cases.gradients(P)
  with jax.numpy_dtype_promotion('standard'):
    inner = optim.quantize_state(optax.adam(1e-2))
    mine = optim.adam8bit(1e-2)
    a, b = inner.init(P), mine.init(P)
    for _ in range(3):
      u, a = inner.update(g, a)
      want, b = mine.update(g, b)
  chex.assert_trees_all_close(u, want, **tight)


def test_quantize_state_refuses_what_would_diverge():
  with pytest.raises(ValueError, match='explodes'):
    optim.quantize_state(optax.scale_by_rms(), 'int8@g64').init(P)
  # A momentum may be linear, and may not be unsigned.
  optim.quantize_state(optax.trace(0.9), 'int8@g64').init(P)
  with pytest.raises(ValueError, match='no negative'):
    optim.quantize_state(optax.trace(0.9), 'udynamic8@g64').init(P)
  with pytest.raises(ValueError, match='no seed'):
    optim.quantize_state(optax.trace(0.9), 'int8@g64~stochastic').init(P)


def test_quantize_state_refuses_a_state_of_another_kind():
  tx = optim.quantize_state(optax.trace(0.9), 'int8@g64')
  other = optim.quantize_state(optax.trace(0.9), 'int4@g64')
  with pytest.raises(ValueError, match='int4@g64, where int8@g64'):
    tx.update(P, other.init(P))
  floats = tx.init(P)._replace(inner=optax.trace(0.9).init(P))
  with pytest.raises(ValueError, match='codes are expected'):
    tx.update(P, floats)


def test_a_nan_is_skipped_counted_and_placed():
  tx = optim.skip_nonfinite(optim.adam8bit(1e-2, moments=cases.EIGHT))
  state = tx.init(P)
  step = jax.jit(tx.update)
  good = cases.gradients(P)
  _, state = step(good, state)
  bad = {**good, 'b': good['b'].at[3].set(jnp.inf)}
  u, after = step(bad, state)
  chex.assert_trees_all_equal(u, jax.tree.map(jnp.zeros_like, P))
  chex.assert_trees_all_equal(after.inner, state.inner)
  assert int(after.skipped) == 1
  assert jax.tree.map(int, after.bad) == {'w': 0, 'b': 1}
  u, after = step(good, after)
  assert int(after.skipped) == 1
  assert (u['w'] != 0).all()


def test_without_the_guard_a_nan_stays_in_its_block():
  tx = optim.scale_by_adam(moments=cases.EIGHT)
  g = {'w': jnp.ones((64, 64)).at[0, 0].set(jnp.nan)}
  _, state = tx.update(g, tx.init(g))
  u, _ = tx.update({'w': jnp.ones((64, 64))}, state)
  assert jnp.isnan(u['w'][0]).all()  # A block of 64 is the first row.
  assert jnp.isfinite(u['w'][1:]).all()


def test_keys_count_in_state_bits():
  state = optim.stochastic_weights(0).init(P)
  assert optim.state_bits(state) == 32 + 64
  assert '8  key' in optim.describe(state)


def test_states_survive_a_checkpoint(tmp_path):
  from orbax import checkpoint

  tx = optim.adamw4bit(1e-2, moments=cases.FOUR)
  p, state = cases.train(tx, {'w': P['w']})
  with checkpoint.StandardCheckpointer() as saver:
    saver.save(tmp_path / 'state', state)
    saver.wait_until_finished()
    back = saver.restore(tmp_path / 'state', tx.init({'w': P['w']}))
  chex.assert_trees_all_equal(back, state)
  g = cases.gradients(p)
  chex.assert_trees_all_equal(tx.update(g, back, p), tx.update(g, state, p))


def test_names():
  assert set(optim.__all__) <= set(dir(optim))
  assert lb.optim is optim
  assert optim.state_bits(()) == 0


def test_rows_keep_the_shape_and_are_flat_blocks_where_these_fit():
  x = jax.random.normal(jax.random.key(0), (3, 8, 64)).at[1, 2].set(0)
  rows, flat = optim.Rows('dynamic8@g32'), optim.Flat('dynamic8@g32')
  stored, other = rows.encode(x), flat.encode(x)
  assert stored.codes.shape == x.shape
  assert stored.scale.shape == (3, 8, 2)
  chex.assert_trees_all_equal(
    rows.decode(stored, x.shape), flat.decode(other, x.shape)
  )
  assert not rows.decode(stored, x.shape)[1, 2].any()
  small = optim.Rows('de0_4@g32').encode(x)
  assert small.words.size == x.size // 2
  with pytest.raises(ValueError, match='a parameter of'):
    rows.decode(stored, (24, 64))


def test_adam_over_rows_is_adam_over_flat_blocks():
  params = {'w': jax.random.normal(jax.random.key(0), (64, 128))}
  grads = jax.tree.map(jnp.cos, params)
  results = []
  for kind in (optim.Rows, optim.Flat):
    moments = optim.Moments(kind('dynamic8@g32'), kind('udynamic8@g32'))
    tx = optim.adamw8bit(1e-3, moments=moments)
    state = tx.init(params)
    for _ in range(3):
      updates, state = tx.update(grads, state, params)
    results.append(updates)
  chex.assert_trees_all_close(*results, rtol=1e-6)
