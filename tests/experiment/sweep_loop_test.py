"""Sweeps: what is run, what is kept, and what survives."""

import copy
import importlib.util
import json
import pathlib
import shutil

import jax
import numpy as np
import pytest

import lowbit as lb
from lowbit.experiment import results, sweep, sweep_loop, sweep_program
from lowbit.models import decoder, loss

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent


def smoke(**changes):
  path = ROOT / 'configs/sweeps/smoke.py'
  spec = importlib.util.spec_from_file_location('smoke', path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  config = module.get_config()
  config.grid = (
    dict(model='tiny', tokens=4 * 256, weight=('', 'e2m1@channel')),
  )
  config.checkpoint_every = 2
  config.post = ()
  config.windows = 8
  config.update(changes)
  return config


@pytest.fixture(autouse=True)
def promotion():
  # optax's own Adam promotes implicitly.
  standard = jax.numpy_dtype_promotion('standard')
  with standard, jax.numpy_rank_promotion('allow'):
    yield


class Killed(Exception):
  """Stands for SIGKILL."""


def go(config, out, kill_at=None, said=None):
  """Runs a sweep; raises `Killed` after its `kill_at`-th segment."""
  said = [] if said is None else said
  job = sweep_loop.Sweep(config, out, said.append)
  shown = []

  def show(status):
    shown.append(status.done)
    if kill_at is not None and status.done == kill_at:
      raise Killed

  return job.run(show), shown


def plain(rows):
  return [{k: v for k, v in row.items() if k != 'seconds'} for row in rows]


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
  """Rows of the sweep that nothing stopped."""
  out = tmp_path_factory.mktemp('whole')
  with jax.numpy_dtype_promotion('standard'), jax.numpy_rank_promotion('allow'):
    return plain(go(smoke(), out)[0])


def test_rows_say_what_was_run(whole):
  float_row, row = whole
  assert (float_row['weight'], row['weight']) == ('', 'e2m1@channel')
  assert row['status'] == 'ok'
  assert row['config']['model']['width'] == 16
  assert row['config_hash'] == results.config_hash(row['config'])
  # 2 x 16 x 16 + 2 x 16 x 8 + 3 x 16 x 24, and three norms.
  assert row['parameters'] == 768 + 1152 + 48
  assert row['parameters_total'] == row['parameters'] + 2 * 256 * 16
  assert 0 < row['loss_nats'] < np.log(256) + 0.2
  assert row['loss_nats'] != float_row['loss_nats']


@pytest.mark.slow  # Compiles one more program.
def test_a_member_trains_as_it_would_alone(whole, tmp_path):
  config = smoke()
  config.grid = (dict(model='tiny', tokens=4 * 256, weight='e2m1@channel'),)
  (row,) = go(config, tmp_path)[0]
  assert row['loss_nats'] == pytest.approx(whole[1]['loss_nats'], abs=2e-4)
  assert row['config_hash'] == whole[1]['config_hash']


def test_evaluation_is_that_of_the_recipe():
  config = smoke()
  (group,) = sweep.groups(config, sweep.runs(config))
  program = sweep.program(config, group)
  members = sweep.members(config, group)
  params = sweep_program.init(program, members).params
  rows = np.random.default_rng(0).integers(256, size=(4, 32)).astype(np.int32)
  got = sweep_program.evaluate(program, members, params, rows, 4)
  keep = (lb.Rule('head/kernel|embed/embedding'),)
  recipe = lb.Recipe('r', (*keep, lb.Rule('.*', 'e2m1@channel')))
  second = jax.tree.map(lambda p: p[1], params)
  model = decoder.Decoder(program.model)
  logits = lb.apply(model, second, rows, recipe=recipe)
  want = np.mean(loss.next_token_nats(logits, rows), axis=-1)
  np.testing.assert_allclose(got[1], want, rtol=1e-5)


@pytest.mark.parametrize('kill_at', [0, 2, 4])
def test_a_killed_sweep_ends_with_the_same_rows(tmp_path, whole, kill_at):
  with pytest.raises(Killed):
    go(smoke(), tmp_path, kill_at)
  rows, shown = go(smoke(), tmp_path)
  assert plain(rows) == whole
  assert 2 not in shown or kill_at == 0  # Its segment is not trained again.
  assert not list((tmp_path / 'checkpoints').iterdir())


def test_finished_runs_are_not_run_again(tmp_path, whole):
  go(smoke(), tmp_path)
  before = (tmp_path / 'results.jsonl').read_text()
  rows, shown = go(smoke(), tmp_path)
  assert (plain(rows), shown) == (whole, [])
  assert (tmp_path / 'results.jsonl').read_text() == before
  # A larger grid goes on from there.
  larger = smoke()
  larger.grid = (*larger.grid, dict(model='tiny', tokens=256, seed=1))
  rows, shown = go(larger, tmp_path)
  assert plain(rows)[:2] == whole
  assert shown[-1] == 1
  assert len(rows) == 3


def test_a_half_written_line_is_set_aside_and_run_again(tmp_path, whole):
  go(smoke(), tmp_path)
  file = tmp_path / 'results.jsonl'
  raw = file.read_bytes()
  file.write_bytes(raw[:-20])
  with pytest.warns(UserWarning, match='set aside'):
    rows, _ = go(smoke(), tmp_path)
  assert rows[0]['config_hash'] == whole[0]['config_hash']
  assert rows[1]['loss_nats'] == pytest.approx(whole[1]['loss_nats'], abs=2e-4)
  assert len(file.read_text().splitlines()) == 2
  assert (tmp_path / 'results.jsonl.rejected').exists()


def checkpoint_of(out, step):
  (folder,) = (out / 'checkpoints').iterdir()
  return folder / str(step)


def flip(path):
  """Changes a byte of the largest data file of a checkpoint."""
  files = [p for p in path.rglob('*') if p.is_file() and '/d/' in str(p)]
  file = max(files, key=lambda p: p.stat().st_size)
  raw = bytearray(file.read_bytes())
  raw[len(raw) // 2] ^= 0x10
  file.write_bytes(bytes(raw))


def cut(path):
  (path / '_CHECKPOINT_METADATA').unlink()


@pytest.mark.parametrize('harm', [flip, cut])
def test_a_broken_checkpoint_is_set_aside_and_reported(tmp_path, whole, harm):
  with pytest.raises(Killed):
    go(smoke(), tmp_path, 4)
  harm(checkpoint_of(tmp_path, 4))
  (checkpoint_of(tmp_path, 4).parent / '6.orbax-checkpoint-tmp').mkdir()
  said = []
  rows, _ = go(smoke(), tmp_path, said=said)
  assert plain(rows) == whole
  assert sum('was set aside' in text for text in said) == 2
  assert any('go on from step 2' in text for text in said)
  assert len(list((tmp_path / 'rejected').iterdir())) == 2


@pytest.mark.slow  # Compiles one more program.
def test_a_checkpoint_of_another_architecture_is_not_used(tmp_path, whole):
  wide = smoke()
  wide.models.tiny.width = 24
  with pytest.raises(Killed):
    go(wide, tmp_path / 'wide', 2)
  with pytest.raises(Killed):
    go(smoke(), tmp_path / 'out', 2)
  target = checkpoint_of(tmp_path / 'out', 2)
  shutil.rmtree(target)
  shutil.copytree(checkpoint_of(tmp_path / 'wide', 2), target)
  said = []
  rows, _ = go(smoke(), tmp_path / 'out', said=said)
  assert plain(rows) == whole
  assert any('does not fit' in text and '24' in text for text in said)
  # Its whole group belongs to no run of this grid: set aside as well.
  shutil.copytree(
    tmp_path / 'wide/checkpoints',
    tmp_path / 'out/checkpoints',
    dirs_exist_ok=True,
  )
  said = []
  go(smoke(), tmp_path / 'out', said=said)
  assert any('not in this grid' in text for text in said)


def test_a_diverged_run_is_recorded_and_the_sweep_goes_on(tmp_path):
  config = smoke()
  config.grid = (dict(model='tiny', tokens=512, learning_rate=(1e38, 1e-2)),)
  rows, _ = go(config, tmp_path)
  assert [row['status'] for row in rows] == ['diverged', 'ok']
  assert rows[0]['loss_nats'] is None
  lines = (tmp_path / 'results.jsonl').read_text().splitlines()
  assert json.loads(lines[0])['loss_nats'] is None
  assert go(config, tmp_path)[1] == []  # It is finished.


def test_results_of_another_config_are_an_error(tmp_path):
  go(smoke(), tmp_path)
  other = smoke(weight_decay=0.0, batch=4)
  with pytest.raises(ValueError, match='batch, weight_decay.*--out=DIR'):
    sweep_loop.Sweep(other, tmp_path)


def test_one_process_runs_a_folder(tmp_path, whole):
  first = sweep_loop.Sweep(smoke(), tmp_path)
  second = sweep_loop.Sweep(smoke(), tmp_path)

  def show(status):
    del status
    with pytest.raises(ValueError, match='runs now'):
      second.run()

  assert plain(first.run(show)) == whole


@pytest.mark.parametrize(
  'change, hint',
  [
    (dict(grid=(dict(model='tiny', tokens=256, wieght='int4'),)), 'wieght'),
    (dict(grid=(dict(model='tiny'),)), r"misses \['tokens'\]"),
    (dict(grid=(dict(model='tiny', tokens=()),)), 'no runs'),
    (dict(grid=()), 'no runs'),
    (dict(grid=(dict(model='huge', tokens=256),)), "'huge' is not in"),
    (dict(grid=(dict(model='tiny', tokens=300),)), 'such as 256'),
    (
      dict(grid=(dict(model='tiny', tokens=256, weight='nf4@g8'),)),
      'not a float grid',
    ),
    (
      dict(grid=(dict(model='tiny', tokens=256, learning_rate=-1.0),)),
      'learning_rate',
    ),
    (dict(windows=12), 'must divide'),
    (dict(members=0), '`members` must be positive'),
    (dict(post=('e2m1z@g8',)), 'zero point'),
  ],
)
def test_bad_configs_fail_before_any_work(tmp_path, change, hint):
  with pytest.raises(ValueError, match=hint):
    sweep_loop.Sweep(smoke(**change), tmp_path / 'out')
  assert not (tmp_path / 'out/results.jsonl').exists()


def test_groups_share_what_they_can():
  config = smoke(members=3)
  config.grid = (
    dict(
      model='tiny',
      tokens=256,
      weight=('', 'int4@channel', 'e2m1@channel', 'int4@g8'),
      activation=('', 'int8@token'),
      seed=(0, 1),
    ),
  )
  runs = sweep.runs(config)
  groups = sweep.groups(config, runs)
  packed = [run for group in groups for run in group.runs]
  assert sorted(map(repr, packed)) == sorted(map(repr, runs))
  assert max(len(g.runs) for g in groups) == 3
  for group in groups:
    blocks = {run.weight.partition('@')[2] for run in group.runs} - {''}
    assert len(blocks) <= 1
    assert sweep.group_of(config, group.runs) == group
  again = copy.deepcopy(config)
  assert sweep.groups(again, sweep.runs(again)) == groups
