import json
import os
import pathlib
import subprocess
import sys

import jax.numpy as jnp
import pytest

from lowbit.experiment import bench_quantize, qwix_baseline, timing

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
HLO = """
%fused (p: f32[8]) -> f32[8] {
  ROOT %big.1 = f32[999]{0} broadcast(%p), dimensions={}
}

ENTRY %main (x: f32[4,2]) -> (f32[4], s8[4,2]) {
  %x = f32[4,2]{1,0} parameter(0)
  %c = f32[] constant(0)
  %flat = f32[8]{0} bitcast(%x)
  %sum = f32[4]{0} reduce(%x, %c), dimensions={1}, to_apply=%add
  %two = (f32[4]{0}, f32[1]{0}) fusion(%sum), kind=kLoop, calls=%fused
  %gte = f32[4]{0} get-tuple-element(%two), index=0
  %out = s8[4,2]{1,0} fusion(%gte, %flat), kind=kLoop, calls=%fused
  ROOT %t = (f32[4]{0}, s8[4,2]{1,0}) tuple(%gte, %out)
}
"""


def test_steps_are_what_moves_memory():
  assert timing.step_sizes(HLO) == [8, 4, 8]


def test_programs_say_what_they_touch():
  x = jnp.ones((64, 64))
  double = timing.compile(lambda x: x * 2, x)
  assert double.passes == 1
  assert double.bytes_accessed == 2 * x.nbytes
  assert (double() == 2).all()
  twice = timing.compile(lambda x: jnp.sort(jnp.sort(x, 0), 1), x)
  assert twice.passes == 2


def test_programs_run_in_turns_and_the_fastest_run_counts(monkeypatch):
  calls, clock = [], iter(range(0, 10**6))
  monkeypatch.setattr(timing.time, 'perf_counter', lambda: next(clock))
  monkeypatch.setattr(timing.time, 'process_time', lambda: 2 * len(calls))

  def slow():  # 9, 7, 5: on a clock that moves on with each look.
    calls.append('slow')
    for _ in range(10 - 2 * calls.count('slow')):
      next(clock)

  best = timing.best_seconds(
    {'slow': slow, 'fast': lambda: calls.append('fast')}, 3
  )
  assert calls == ['slow', 'fast'] * 4
  assert best == {'slow': (3, 2), 'fast': (1, 2)}


@pytest.mark.parametrize(
  'bad, message',
  [((0, 1), 'positive'), ((1, 0), 'positive'), ((1, 1, '('), 'expression')],
)
def test_bad_settings(bad, message):
  with pytest.raises(ValueError, match=message):
    timing.Settings(*bad)


def test_rows_of_the_suite(monkeypatch):
  monkeypatch.setattr(qwix_baseline, 'is_installed', lambda: False)
  settings = timing.Settings(64, 1, '^int8@channel$')
  rows = list(bench_quantize.rows(settings))
  assert [row['what'] for row in rows[:4]] == [
    'quantize',
    'dequantize',
    'fake',
    'gradient',
  ]
  assert [row['dtype'] for row in rows] == ['float32'] * 4 + ['bfloat16'] * 4
  assert all(row['times_qwix'] == 'not installed' for row in rows)
  assert all(row['times_double'] > 0 for row in rows)
  assert [row['passes'] for row in rows[:3]] == [2, 1, 2]


def test_sweep_times_both_ways():
  row = bench_quantize.sweep({'w': jnp.ones((8, 8)), 'b': jnp.ones(3)}, 'g8')
  assert row['times_static'] > 0
  assert len(set(bench_quantize.SWEEP)) == 16


@pytest.mark.slow
def test_the_script_prints_and_appends(tmp_path):
  command = [sys.executable, ROOT / 'scripts/bench.py', '--suite=quantize']
  arguments = ['--size=64', '--repeats=1', '--only=dint4', f'--out={tmp_path}']
  wide = os.environ | {'COLUMNS': '200'}
  done = subprocess.run(
    [*command, *arguments], capture_output=True, text=True, check=True, env=wide
  )
  assert 'dint4@g128' in done.stdout
  lines = (tmp_path / 'quantize.jsonl').read_text().splitlines()
  assert len(lines) == 8
  assert json.loads(lines[0])['suite'] == 'quantize'
  bad = subprocess.run(
    [*command, '--only=('], capture_output=True, text=True, check=False
  )
  assert bad.returncode != 0
  assert 'regular expression' in bad.stderr + bad.stdout
