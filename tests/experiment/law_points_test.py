"""Rows of a sweep as points of laws, and scripts/fit_law.py on them."""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from lowbit.experiment import law_points, results

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
SWEEP = ROOT / 'docs/embedded_sweep.jsonl'


@pytest.fixture(scope='module')
def rows():
  return results.read(SWEEP)


def test_the_sweep_of_the_docs_is_whole(rows):
  assert len(rows) == 176
  assert SWEEP.stat().st_size < 2**20
  assert {row['status'] for row in rows} == {'ok'}
  assert all(
    row['config_hash'] == results.config_hash(row['config']) for row in rows
  )


def test_points_of_each_law(rows):
  count = {k: len(f(rows).target) for k, f in law_points.BY_NAME.items()}
  # 16 combinations of size and length; 2 formats on inputs and weights that
  # are uniform, 2 on one of them; 8 of ExMy and the float run.
  assert count['chinchilla'] == count['kaplan'] == 16
  assert count['precision'] == 16 * 5
  assert count['capybara'] == 16 * 9
  assert count['inference'] == 4 * 6
  assert count['qid'] == count['post_training'] <= 16 * 6
  assert count['qat'] <= 16 * 2
  p = law_points.capybara(rows)
  some = (p.inputs['exponent'] == 3) & (p.inputs['tokens'] == 2**16)
  assert sorted(p.inputs['parameters'][some]) == [6736, 21664, 49392, 82240]
  assert set(p.inputs['block'][some]) == {16}
  total = law_points.inference(rows)
  two = total.inputs['bits'] == 2
  np.testing.assert_allclose(
    sorted(total.inputs['total_bits'][two]),
    [4 * n for n in (6736, 21664, 49392, 82240)],  # 2 bits, and 32 for 16.
  )


def test_diverged_rows_are_left_out(rows):
  broken = [dict(rows[0], status='diverged', loss_nats=None), *rows[1:]]
  found = law_points.chinchilla(broken)
  assert len(found.target) == 15
  assert np.all(np.isfinite(found.target))


def test_rows_without_points_are_an_error(rows):
  floats = [row for row in rows if law_points.is_float(row)]
  with pytest.raises(ValueError, match='None of 16 rows'):
    law_points.qat(floats)
  with pytest.raises(ValueError, match='None of 0 rows'):
    law_points.chinchilla([])


def script(*flags):
  done = subprocess.run(
    [sys.executable, str(ROOT / 'scripts/fit_law.py'), *map(str, flags)],
    capture_output=True,
    text=True,
    env={**os.environ, 'JAX_PLATFORMS': 'cpu', 'MPLBACKEND': 'Agg'},
  )
  return done.returncode, done.stdout + done.stderr


def test_the_script_fits_and_draws(tmp_path):
  picture = tmp_path / 'p.png'
  flags = ('--law=qid', '--draws=5', f'--out={picture}')
  code, said = script(SWEEP, *flags)
  assert code == 0, said
  for hint in ('unified', '63 points', 'Held out', 'log error', 'Picture'):
    assert hint in said
  assert picture.stat().st_size > 5000


def test_the_script_says_what_is_wrong(tmp_path, rows):
  few = tmp_path / 'few.jsonl'
  floats = [row for row in rows if law_points.is_float(row)]
  few.write_text(''.join(json.dumps(row) + '\n' for row in floats[:3]))
  for flags, hint in (
    ((few, '--law=chinchilla'), '5 coefficients to fit, and there are 3'),
    ((tmp_path / 'none', '--law=qid'), 'is not a file'),
    ((few, '--law=moore'), 'moore'),
    ((), 'Give one results file'),
  ):
    code, said = script(*flags)
    assert code != 0
    assert hint in said
