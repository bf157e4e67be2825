import chex
import jax
import jax.numpy as jnp
import pytest

import lowbit as lb
from lowbit import operators, optim
from lowbit.experiment import checkpoint

X = jax.random.normal(jax.random.key(0), (64, 32))


@pytest.mark.parametrize('pack', [False, True])
def test_quantized_params_come_back(tmp_path, pack):
  q = {n: lb.quantize(X, n, axis=0) for n in ('nvfp4', 'int3z@g16', 'mxfp4')}
  if pack:
    q = {n: lb.pack(v) for n, v in q.items()}
  tree = {'a': {n: operators.Coded(v) for n, v in q.items()}, 'b': X}
  checkpoint.save(tmp_path / 'c', tree)
  like = jax.eval_shape(lambda: tree)
  back = checkpoint.restore(tmp_path / 'c', like)
  chex.assert_trees_all_equal(back, tree)
  chex.assert_trees_all_equal(
    lb.matmul(X.T, back['a']['nvfp4']), lb.matmul(X.T, tree['a']['nvfp4'])
  )


def test_errors_name_the_paths(tmp_path):
  checkpoint.save(tmp_path / 'c', {'a': X, 'b': X})
  with pytest.raises(ValueError, match='exists'):
    checkpoint.save(tmp_path / 'c', {'a': X})
  for like, hint in (
    ({'a': X}, r"unknown \[\"\['b'\]\"\]"),
    ({'a': X, 'b': X, 'c': X}, r"missing \[\"\['c'\]\"\]"),
    ({'a': X, 'b': X[:3]}, r"\['b'\]: float32 .*64, 32.*not float32 \(3, 32"),
    ({'a': X, 'b': X.astype(jnp.bfloat16)}, 'not bfloat16'),
  ):
    with pytest.raises(ValueError, match=hint):
      checkpoint.restore(tmp_path / 'c', like)
  with pytest.raises(ValueError, match='not a finished checkpoint'):
    checkpoint.restore(tmp_path / 'none', {'a': X})


def states(first, second):
  moments = optim.Moments(first, second, min_size=16)
  return optim.adamw8bit(1e-3, moments=moments).init({'w': X})


def test_codes_are_not_read_as_those_of_another_spec(tmp_path):
  """Shapes and dtypes are alike: only the written spec tells them apart."""
  saved = states('dynamic8@g64', 'udynamic8@g64')
  checkpoint.save(tmp_path / 'c', saved)
  back = checkpoint.restore(tmp_path / 'c', saved)
  chex.assert_trees_all_equal(back, saved)
  like = states('dynamic8@g64', 'de0_8@g64')
  shapes = lambda tree: jax.tree.map(lambda a: (a.shape, a.dtype), tree)
  assert jax.tree.leaves(shapes(like)) == jax.tree.leaves(shapes(saved))
  with pytest.raises(
    ValueError, match=r"nu\['w'\]: udynamic8@g64, not de0_8@g64\. Make `like`"
  ):
    checkpoint.restore(tmp_path / 'c', like)


def test_formats_of_rank_one_states_are_checked_too(tmp_path):
  like = lambda name: states('dynamic4@g64', optim.RankOne(name))
  checkpoint.save(tmp_path / 'c', like('linear0_4'))
  with pytest.raises(ValueError, match=r'linear0_4, not de0_4'):
    checkpoint.restore(tmp_path / 'c', like('de0_4'))


def test_steps_of_a_run_restore_into_the_same_state_only(tmp_path):
  spec = lambda width: optim.Moments(
    optim.Rows(f'dynamic8@g{width}'), optim.Rows(f'udynamic8@g{width}')
  )

  def state(rows, width):
    params = {'w': jnp.ones((rows, 128))}
    return params, optim.adamw8bit(1e-3, moments=spec(width)).init(params)

  tree = state(64, 32)
  with checkpoint.manager_of(tmp_path) as manager:
    assert checkpoint.restore_newest(manager, tree) is None
    checkpoint.save_step(manager, 3, tree)
  with checkpoint.manager_of(tmp_path) as manager:  # As another process.
    found = checkpoint.restore_newest(
      manager, jax.tree.map(jnp.zeros_like, tree)
    )
    chex.assert_trees_all_equal(found, tree)
    with pytest.raises(ValueError, match=r'does not fit.*\(64, 128\), not'):
      checkpoint.restore_newest(manager, state(128, 32))
    with pytest.raises(ValueError, match='other specs'):
      checkpoint.restore_newest(manager, state(64, 64))


@pytest.mark.parametrize('spec', ['int4@g128', 'int3z@g64'])
def test_a_packed_model_takes_the_bits_that_are_counted(tmp_path, spec):
  """The files: at most 1 % more; they are less where orbax compresses."""
  keys = jax.random.split(jax.random.key(0), 4)
  params = {
    str(i): lb.pack(lb.quantize(jax.random.normal(k, (4096, 2048)), spec, 0))
    for i, k in enumerate(keys)
  }
  counted = lb.bits(params) / 8
  assert sum(leaf.nbytes for leaf in jax.tree.leaves(params)) == counted
  path = tmp_path / 'c'
  checkpoint.save(path, params)
  chex.assert_trees_all_equal(checkpoint.restore(path, params), params)
  files = [file for file in path.rglob('*') if file.is_file()]
  assert sum(file.stat().st_size for file in files) <= 1.01 * counted
