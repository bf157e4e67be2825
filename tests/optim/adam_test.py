"""Moments in 8 and 4 bits: maps, errors of the update, bad input."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import lowbit as lb
from lowbit import optim
from lowbit.optim import second_moment, streaming


def moments_like(n=2**17, seed=0):
  """A first and a second moment over many scales, as in training."""
  rng = np.random.default_rng(seed)
  draw = lambda: rng.normal(size=n) * np.exp(1.5 * rng.normal(size=n)) * 1e-3
  m, v = draw(), draw() ** 2 + 1e-10
  return jnp.asarray(m, jnp.float32), jnp.asarray(v, jnp.float32)


def stored(name, x):
  flat = optim.Flat(name)
  return flat.decode(flat.encode(x), x.shape)


def update_error(first, second):
  """Median relative error of m / (sqrt(v) + 1e-8) after storage."""
  m, v = moments_like()
  u = lambda m, v: m / (jnp.sqrt(v) + 1e-8)
  want, got = u(m, v), u(stored(first, m), stored(second, v))
  return float(jnp.median(jnp.abs(got - want) / jnp.abs(want)))


@pytest.mark.parametrize(
  'block, error',
  [('g64', 0.038), ('g256', 0.053), ('g2048', 0.084)],
)
def test_error_of_the_8_bit_update_by_block(block, error):
  got = update_error(f'dynamic8@{block}', f'udynamic8@{block}')
  assert got == pytest.approx(error, rel=0.05)
  assert update_error('dynamic8@tensor', 'udynamic8@tensor') > 2 * got


def test_linear_codes_ruin_the_update():
  linear = optim.Flat('int8@g2048')
  assert update_error('int8@g2048', 'int8@g2048') >= 1.0
  with pytest.raises(ValueError, match='explodes'):
    second_moment.check(linear)


def structured_moment(seed=0):
  """Mean squares with log-normal scales of rows and columns, [512, 256]."""
  rng = np.random.default_rng(seed)
  rows, columns = rng.normal(size=(512, 1)), rng.normal(size=(1, 256))
  square = rng.chisquare(2, size=(512, 256)) / 2
  v = square * np.exp(rows + columns) * 1e-6
  return jnp.asarray(v, jnp.float32)


def inverse_root_error(store):
  v = structured_moment()
  root = lambda v: 1 / (jnp.sqrt(v) + 1e-8)
  ratio = root(store.decode(store.encode(v), v.shape)) / root(v)
  return np.asarray(ratio)


def test_zero_in_a_4_bit_second_moment_explodes():
  tree = optim.Flat('udynamic4@g128')
  v = structured_moment()
  back = tree.decode(tree.encode(v), v.shape)
  assert float(jnp.mean((back == 0).astype(jnp.float32))) > 0.02
  assert inverse_root_error(tree).max() > 1e4
  for name in ('de0_4@g128', 'linear0_4@g128'):
    assert inverse_root_error(optim.Flat(name)).max() < 1.5


@pytest.mark.parametrize('name, gain', [('linear0_4', 1.3), ('de0_4', 1.05)])
def test_rank_one_scales_fit_matrices_better_than_blocks(name, gain):
  median = lambda s: np.median(np.abs(inverse_root_error(s) - 1))
  blocks = median(optim.Flat(f'{name}@g128'))
  assert blocks > gain * median(optim.RankOne(name))


def test_rank_one_is_the_cover_by_hand():
  x = jnp.asarray(np.random.default_rng(0).random((3, 4, 6)), jnp.float32)
  rank_one = optim.RankOne('linear0_4')
  got = np.asarray(rank_one.decode(rank_one.encode(x), x.shape))
  x, want = np.asarray(x), np.zeros(x.shape)
  for i, j, k in np.ndindex(x.shape):
    scale = min(x[i].max(), x[:, j].max(), x[:, :, k].max())
    code = np.clip(np.round(16 * x[i, j, k] / scale), 1, 16)
    want[i, j, k] = code / 16 * scale
  np.testing.assert_allclose(got, want, rtol=1e-6)


def test_factored_moments_follow_adafactor():
  rng = np.random.default_rng(0)
  store = optim.Factored(optim.Flat('linear0_4@g128'))
  rows, columns, state = (
    np.zeros(5),
    np.zeros(7),
    store.encode(jnp.zeros((5, 7))),
  )
  for _ in range(4):
    square = rng.normal(size=(5, 7)) ** 2
    rows = 0.9 * rows + 0.1 * square.mean(1)
    columns = 0.9 * columns + 0.1 * square.mean(0)
    v = 0.9 * store.decode(state, (5, 7)) + 0.1 * jnp.float32(square)
    state = store.encode(v)
  want = np.outer(rows / rows.mean(), columns)
  np.testing.assert_allclose(store.decode(state, (5, 7)), want, rtol=1e-5)


@pytest.mark.parametrize('name', ['linear0_4@g64', 'de0_4@g64', 'dynamic8@g64'])
def test_blocks_of_zeros_come_back_as_zeros(name):
  x = jnp.zeros(256).at[70].set(3.0)
  back = stored(name, x)
  assert (back[:64] == 0).all()
  assert (back[128:] == 0).all()
  assert back[70] == 3.0


def test_a_parameter_smaller_than_a_block_is_one_block():
  x = jnp.asarray(np.random.default_rng(0).normal(size=(3, 5)), jnp.float32)
  flat = optim.Flat('dynamic8@g2048')
  q = flat.encode(x)
  assert q.scale.shape == (1,)
  got = flat.decode(q, (3, 5))
  np.testing.assert_allclose(got, x, atol=0.01 * float(jnp.abs(x).max()))


def test_float_state_equals_optax():
  p = {'w': jnp.ones((8, 8)), 'b': jnp.zeros(8)}
  g = jax.tree.map(lambda x: jax.random.normal(jax.random.key(1), x.shape), p)
  pairs = [
    (optim.adamw8bit(1e-2), optax.adamw(1e-2)),
    (optim.adamw4bit(1e-2), optax.adamw(1e-2)),
    (optim.momentum8bit(1e-2, nesterov=True), optax.sgd(1e-2, 0.9, True)),
    (optim.lion8bit(1e-2), optax.lion(1e-2)),
  ]
  for mine, theirs in pairs:
    with jax.numpy_dtype_promotion('standard'):  # optax needs it.
      a, b = mine.init(p), theirs.init(p)
      for _ in range(3):
        u, a = mine.update(g, a, p)
        want, b = theirs.update(g, b, p)
    chex.assert_trees_all_close(u, want, rtol=1e-6, atol=1e-9)


def test_state_takes_a_quarter_and_an_eighth_of_the_bytes():
  p = {'w': jnp.zeros((512, 512))}
  with jax.numpy_dtype_promotion('standard'):
    full = optim.state_bits(optax.adamw(1.0).init(p))
  eight = jax.eval_shape(optim.adamw8bit(1.0).init, p)
  four = optim.adamw4bit(1.0).init(p)
  assert full == 2 * 32 * 512**2 + 32
  # Codes, a float32 for 256 elements, the count of steps.
  assert optim.state_bits(eight) == 2 * (8 + 32 / 256) * 512**2 + 32
  scales = 32 / 128 * 512**2 + 32 * 2 * 512
  assert optim.state_bits(four) == 2 * 4 * 512**2 + scales + 32
  held = sum(x.nbytes for x in jax.tree.leaves(four))
  assert optim.state_bits(four) == 8 * held
  assert 'bytes in total' in optim.describe(four)
  assert 'linear0_4 rank one' in optim.describe(four)


def test_slices_are_the_whole():
  n = 2 * streaming.SLICE + 1000
  rng = np.random.default_rng(0)
  p = {'w': jnp.asarray(rng.normal(size=n), jnp.float32)}
  tx = optim.scale_by_adam()
  step = jax.jit(tx.update)
  sliced, state = step(p, tx.init(p))
  assert 'while' in step.lower(p, state).as_text()
  parts = {'a': p['w'][: n // 2], 'b': p['w'][n // 2 :]}
  whole, states = step(parts, tx.init(parts))
  np.testing.assert_allclose(
    sliced['w'], np.concatenate([whole['a'], whole['b']]), rtol=1e-5
  )
  got = optim.EIGHT_BIT.second.decode(state.nu['w'], (n,))
  # One step: nu is 0.001 g^2 to the precision of its codes.
  want = 0.001 * np.asarray(p['w']) ** 2
  assert np.median(np.abs(got - want) / want) < 0.01
  assert states.nu['a'].codes.shape == (n // 2,)


def test_embeddings_may_keep_float_state():
  moments = optim.Moments(
    'dynamic8@g256', 'udynamic8@g256', keep=('embed',), min_size=16
  )
  p = {'embed': {'table': jnp.zeros((64, 64))}, 'w': jnp.zeros((64, 64))}
  state = optim.scale_by_adam(moments=moments).init(p)
  assert state.mu['embed']['table'].dtype == jnp.float32
  assert isinstance(state.mu['w'], lb.QTensor)
  with pytest.raises(TypeError, match='tuple of patterns'):
    optim.Moments('dynamic8@g256', keep='embed')


def test_stochastic_states_need_a_seed_and_are_unbiased():
  name = 'int8@g64~stochastic'
  with pytest.raises(ValueError, match='seed=0'):
    optim.Moments(name)
  moments = optim.Moments(name, seed=3, min_size=1)
  tx = optim.trace(0.0, moments=moments)  # The trace is the gradient.
  g = {'w': jnp.linspace(-1.0, 1.0, 64)}
  read = lambda s: moments.first.decode(s.trace['w'], (64,))

  def step(state, _):
    _, state = tx.update(g, state)
    return state, read(state)

  _, draws = jax.lax.scan(step, tx.init(g), None, 4000)
  error = np.abs(np.mean(draws, axis=0) - np.asarray(g['w']))
  assert error.max() < 5 * (1 / 127) / 2 / np.sqrt(4000)
  assert np.std(draws, axis=0).max() > 1e-3


@pytest.mark.parametrize(
  'second',
  ['int8@g256', 'udynamic4@g128', 'e2m1@g128', 'nf4@g64', 'int8z@g256'],
)
def test_second_moments_that_reach_zero_are_refused(second):
  with pytest.raises(ValueError, match='explodes'):
    optim.Moments('dynamic8@g256', second)


def test_second_moments_without_zero_are_welcome():
  for second in ('linear0_4@g128', 'de0_4@g128', 'e5m2@g64', 'udynamic8@g64'):
    optim.Moments('dynamic8@g256', second)
  with pytest.raises(ValueError, match='block of zeros'):
    optim.Flat('linear0_4@g128:bf16')
  with pytest.raises(ValueError, match='no second moment'):
    optim.scale_by_adam(moments=optim.Moments('dynamic8@g256'))


def test_a_state_of_another_storage_is_refused():
  p = {'w': jnp.zeros((64, 64))}
  other = optim.Moments('dynamic8@g64', 'udynamic8@g64')
  state = optim.scale_by_adam(moments=other).init(p)
  with pytest.raises(ValueError, match='dynamic8@g64, where dynamic8@g256'):
    optim.scale_by_adam().update(p, state)
  state = optim.scale_by_adam(moments=optim.FOUR_BIT).init(p)
  with pytest.raises(ValueError, match='expected'):
    optim.scale_by_adam().update(p, state)
  state = optim.scale_by_adam().init({'w': jnp.zeros((64, 128))})
  with pytest.raises(ValueError, match=r'8192 codes, where a parameter'):
    optim.scale_by_adam().update(p, state)
  state = optim.scale_by_adam().init({'w': jnp.zeros((4, 4))})
  with pytest.raises(ValueError, match='shape'):
    optim.scale_by_adam().update({'w': jnp.zeros((2, 4))}, state)


def test_integer_parameters_are_named():
  with pytest.raises(TypeError, match='ids'):
    optim.adam8bit(1e-3).init({'ids': jnp.zeros(4, jnp.int32)})


def test_init_is_not_left_to_the_compiler():
  # Without a barrier XLA encodes millions of zeros while it compiles.
  p = {'w': jnp.zeros((64, 64))}
  for tx in (optim.adamw4bit(1e-3), optim.scale_by_shampoo(optim.Eigen())):
    text = jax.jit(tx.init).lower(p).as_text()
    assert 'optimization_barrier' in text


def test_slices_overwrite_codes_and_hold_little_else():
  """Compiled: no copy of codes or directions, and no float32 of a moment."""
  n = 4 * streaming.SLICE
  p = {'a': jnp.ones(n), 'b': jnp.ones(n)}
  tx = optim.scale_by_adam()
  state = jax.eval_shape(tx.init, p)
  step = jax.jit(tx.update, donate_argnums=1).lower(p, state).compile()
  copies = [
    line
    for line in step.as_text().splitlines()
    if ' copy(' in line and f'[{n}]' in line
  ]
  assert not copies
  # Slices of a few arrays, and the scales: not one float32 of n.
  temporary = step.memory_analysis().temp_size_in_bytes
  assert temporary < 12 * 4 * streaming.SLICE
