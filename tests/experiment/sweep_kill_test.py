"""scripts/sweep.py under SIGKILL, as a user's machine would do it."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent


def start(out, *flags):
  return subprocess.Popen(
    [
      sys.executable,
      str(ROOT / 'scripts/sweep.py'),
      f'--config={ROOT / "configs/sweeps/smoke.py"}',
      f'--out={out}',
      *flags,
    ],
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
    env={**os.environ, 'JAX_PLATFORMS': 'cpu'},
  )


def finish(process):
  said, _ = process.communicate(timeout=600)
  return process.returncode, said


def kill_at(process, out, step):
  """SIGKILL once a checkpoint of a step is there; it must not end before."""
  while all(int(p.name) < step for p in steps(out)):
    assert process.poll() is None, process.communicate()[0]
    time.sleep(0.02)
  process.send_signal(signal.SIGKILL)
  assert finish(process)[0] == -signal.SIGKILL


def rows(out):
  lines = (out / 'results.jsonl').read_text().splitlines()
  found = map(json.loads, lines)
  return [{k: v for k, v in r.items() if k != 'seconds'} for r in found]


def steps(out):
  return [p for p in out.glob('checkpoints/*/*') if p.name.isdigit()]


@pytest.mark.slow
def test_killed_at_any_instant_it_ends_with_the_same_rows(tmp_path):
  whole, out = tmp_path / 'whole', tmp_path / 'out'
  assert finish(start(whole))[0] == 0
  # In the first segments; about when the first group's rows are written, after
  # its last step; and in the second group, of 128 steps.
  for step in (16, 64, 72):
    kill_at(start(out), out, step)
  half = rows(out)
  assert len(half) == 6
  code, said = finish(start(out))
  assert code == 0, said
  assert f'{len(half)} of 12 runs found' in said
  assert 'go on from step' in said
  assert rows(out) == rows(whole)
  code, said = finish(start(out))
  assert (code, '12 of 12 runs found' in said) == (0, True)
  assert rows(out) == rows(whole)


@pytest.mark.parametrize(
  'flags, hint',
  [
    (['--config.batch=5'], 'multiple of batch x sequence'),
    (['--config.typo=1'], 'typo'),
    (['--config.weight_decay=x'], 'weight_decay'),
    (['extra'], 'Unknown arguments'),
  ],
)
def test_bad_flags_say_what_is_wrong(tmp_path, flags, hint):
  code, said = finish(start(tmp_path / 'out', *flags))
  assert code != 0
  assert hint in said
  assert not (tmp_path / 'out/results.jsonl').exists()
