"""scripts/ptq.py as a user runs it, on a decoder of a few thousand weights."""

import json
import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest

from lowbit.data import embedded
from lowbit.models import decoder

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
SMALL = {
  'width': 32,
  'layers': 1,
  'heads': 2,
  'kv_heads': 1,
  'head_dim': 16,
  'hidden': 40,
  'vocab': 256,
}


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
  path = tmp_path_factory.mktemp('weights') / 'w.safetensors'
  model = decoder.Decoder(decoder.DecoderConfig(**SMALL))
  params = model.init(jax.random.key(0), jnp.zeros((1, 4), jnp.int32))['params']
  embedded.save(path, params, SMALL)
  return path


def ptq(out, weights, *flags):
  small = [
    '--config.windows=8',
    '--config.calibration=4',
    '--config.batch=4',
    '--config.sequence=32',
    f'--config.model.path={weights}',
  ]
  return subprocess.run(
    [
      sys.executable,
      str(ROOT / 'scripts/ptq.py'),
      f'--out={out}',
      *small,
      *flags,
    ],
    capture_output=True,
    text=True,
    cwd=out.parent,
    env={**os.environ, 'JAX_PLATFORMS': 'cpu', 'COLUMNS': '160'},
  )


def test_one_recipe_then_nothing_is_run_twice(tmp_path, weights):
  flags = ('--config.recipe=gptq', '--config.weight=int3@g16')
  first = ptq(tmp_path / 'out', weights, *flags)
  assert first.returncode == 0, first.stderr
  assert 'gptq int3@g16' in first.stdout
  lines = (tmp_path / 'out/results.jsonl').read_text().splitlines()
  rows = [json.loads(line) for line in lines]
  assert [r['recipe'] for r in rows] == ['float32', 'gptq int3@g16']
  wanted = {
    'recipe',
    'weight',
    'activation',
    'bits_per_weight',
    'megabytes',
    'bits_per_byte',
    'delta',
    'stderr',
    'kl',
    'seconds',
    'status',
    'config_hash',
    'config',
  }
  assert all(wanted <= set(row) for row in rows)
  assert (tmp_path / 'out/pareto.png').stat().st_size > 5000
  second = ptq(tmp_path / 'out', weights, *flags)
  assert second.returncode == 0, second.stderr
  again = (tmp_path / 'out/results.jsonl').read_text().splitlines()
  assert again == lines


@pytest.mark.parametrize(
  'flag, hint',
  [
    ('--config.weight=int4@q3', 'Unknown block'),
    ('--config.recipe=gtpq', 'is unknown. Use one of'),
    ('--config.typo=3', 'typo'),
    ('--config.data.path=/nowhere', 'is not a file'),
    ('--config.batch=3', 'must divide'),
    ('--config.windows=99999999', 'Ask for 1 to'),
  ],
)
def test_bad_flags_fail_before_any_work(tmp_path, weights, flag, hint):
  done = ptq(tmp_path / 'out', weights, flag)
  assert done.returncode != 0
  assert hint in done.stderr + done.stdout
  assert not (tmp_path / 'out/results.jsonl').exists()


def test_output_that_cannot_be_written(tmp_path, weights):
  (tmp_path / 'file').write_text('')
  done = ptq(tmp_path / 'file', weights)
  assert done.returncode != 0
  assert '--out=DIR' in done.stderr + done.stdout
