import json
import os
import pathlib
import subprocess
import sys

import chex
import jax
import ml_collections
import numpy as np
import pytest

from lowbit.data import embedded
from lowbit.experiment import train
from lowbit.models import decoder


def config(path, **changes):
  return ml_collections.ConfigDict(
    {
      'seed': 0,
      'start': '',
      'sequence': 16,
      'batch': 4,
      'steps': 20,
      'warmup': 2,
      'decay_steps': 5,
      'learning_rate': 1e-2,
      'weight_decay': 0.1,
      'checkpoint_every': 10,
      'evaluate_every': 10,
      'data': {'path': str(path), 'extra': ''},
      'model': {
        'width': 16,
        'layers': 1,
        'heads': 2,
        'kv_heads': 1,
        'head_dim': 8,
        'hidden': 24,
        'vocab': 256,
      },
      **changes,
    }
  )


@pytest.fixture(autouse=True)
def promotion():
  # optax's own Adam promotes implicitly.
  standard = jax.numpy_dtype_promotion('standard')
  with standard, jax.numpy_rank_promotion('allow'):
    yield


@pytest.fixture
def path(tmp_path):
  file = tmp_path / 'text.txt'
  file.write_text('the cat sat on the mat and looked at the rat. ' * 800)
  return file


def test_loss_falls_and_a_killed_run_ends_the_same(path):
  c, rows, saved = config(path), [], []
  whole = train.run(c, saved.append, lambda s: s, rows.append)
  # Steps donate their state: what was saved at step 10 must be rebuilt.
  copies = []
  keep = lambda s: copies.append(jax.tree.map(np.array, s))
  train.run(c, keep, lambda s: s, rows.append)
  again = train.run(
    c,
    keep,
    lambda s: train.TrainState(*jax.tree.map(jax.numpy.asarray, copies[0])),
    rows.append,
  )
  assert int(copies[0].step) == 10
  chex.assert_trees_all_equal(again.params, whole.params)
  assert rows[1]['bits_per_byte'] < 0.8 * 8


def test_schedule():
  f = train.schedule(1.0, 10, 100, 20)
  assert [round(float(f(i)), 3) for i in (0, 5, 10, 79, 90, 100)] == [
    0,
    0.5,
    1,
    1,
    0.5,
    0,
  ]
  with pytest.raises(ValueError, match='Shorten'):
    train.schedule(1.0, 10, 20, 20)


def test_the_script_goes_on_from_its_last_checkpoint(tmp_path):
  text = tmp_path / 'text.txt'
  text.write_text('It was the best of times, it was the worst. ' * 2000)
  root = pathlib.Path(__file__).resolve().parent.parent.parent
  small = {k: v for k, v in config('').model.items() if k != 'vocab'}
  flags = [f'--config.model.{k}={v}' for k, v in small.items()]

  def script(steps):
    return subprocess.run(
      [
        sys.executable,
        str(root / 'scripts/train.py'),
        f'--out={tmp_path / "out"}',
        f'--config.data.path={text}',
        f'--config.steps={steps}',
        '--config.warmup=1',
        '--config.decay_steps=1',
        '--config.sequence=16',
        '--config.evaluate_every=2',
        *flags,
      ],
      capture_output=True,
      text=True,
      check=True,
      env={**os.environ, 'JAX_PLATFORMS': 'cpu'},
    ).stdout

  assert 'Goes on' not in script(4)
  assert 'Goes on from step 4' in script(6)
  rows = (tmp_path / 'out' / 'curve.jsonl').read_text().splitlines()
  assert [json.loads(row)['step'] for row in rows] == [2, 4, 6]
  assert (tmp_path / 'out' / 'decoder.safetensors').exists()


def test_a_run_goes_on_from_given_weights(tmp_path):
  text = tmp_path / 'text.txt'
  text.write_text('to be or not to be. ' * 2000)
  keep = []
  first = train.run(config(text), keep.append, lambda s: s, lambda row: None)
  sizes = dict(config(text).model)
  embedded.save(tmp_path / 'w.safetensors', first.params, sizes)
  again = config(text, start=str(tmp_path / 'w.safetensors'))
  model = decoder.Decoder(decoder.DecoderConfig(**again.model))
  state = train.init(again, model)
  chex.assert_trees_all_close(state.params, first.params, rtol=1e-2)
  assert int(state.step) == 0
  again.model.width = 32
  model = decoder.Decoder(decoder.DecoderConfig(**again.model))
  with pytest.raises(ValueError, match='`start`'):
    train.init(again, model)
