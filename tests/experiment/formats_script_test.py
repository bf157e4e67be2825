"""scripts/formats.py as a user runs it."""

import csv
import json
import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest

import lowbit as lb

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent


def run(out, *flags):
  return subprocess.run(
    [sys.executable, str(ROOT / 'scripts/formats.py'), f'--out={out}', *flags],
    capture_output=True,
    text=True,
    cwd=out.parent,
    env={**os.environ, 'JAX_PLATFORMS': 'cpu', 'COLUMNS': '80'},
  )


def rows(path):
  return [json.loads(line) for line in path.read_text().splitlines()]


def messages(done):
  """Lines on stderr, but for those of the CUDA plugin where there is no GPU."""
  plugin = ('cudart_stub', 'absl::InitializeLog')
  lines = done.stderr.splitlines()
  return [line for line in lines if not any(word in line for word in plugin)]


def test_tables_pictures_and_rows_of_ones_own_weights(tmp_path):
  w = np.asarray(jax.random.normal(jax.random.key(0), (16, 64)))
  np.save(tmp_path / 'w.npy', w)
  out = tmp_path / 'out'
  flags = (
    '--formats=e2m1,bitmod3,int16',
    '--specs=int4@g32,fp32,int4@g32',
    f'--weights={tmp_path / "w.npy"}',
    '--codes',
  )
  first = run(out, *flags)
  assert first.returncode == 0, first.stderr
  assert messages(first) == []
  for text in ('SQNR (dB)', 'e2m1: 16 codes', 'bitmod3_-6', 'outlier channels'):
    assert text in first.stdout
  assert max(map(len, first.stdout.splitlines())) <= 100
  for name in ('number_lines', 'accuracy', 'sqnr', 'weights'):
    assert (out / f'{name}.png').stat().st_size > 5000
  with (out / 'codes_e2m1.csv').open() as file:
    table = list(csv.DictReader(file))
  assert [float(r['value']) for r in table[:4]] == [0, 0.5, 1, 1.5]
  assert len((out / 'codes_int16.csv').read_text().splitlines()) == 65536
  assert [r['name'] for r in rows(out / 'formats.jsonl')] == [
    'e2m1',
    'bitmod3',
    'int16',
  ]
  coded, exact = rows(out / 'weights.jsonl')
  want = lb.compare(w, 'int4@g32').rows[0]
  assert coded['sqnr_db'] == want.sqnr_db
  assert coded['bits_per_weight'] == 5
  assert exact['sqnr_db'] is None  # JSON has no infinity.
  assert [r['spec'] for r in rows(out / 'sqnr.jsonl')] == ['int4@g32', 'fp32']
  before = {p: p.read_text() for p in out.glob('*.jsonl')}
  again = run(out, *flags, '--nopictures')
  assert again.returncode == 0, again.stderr
  assert {p: p.read_text() for p in out.glob('*.jsonl')} == before


@pytest.mark.slow
def test_every_format(tmp_path):
  w = np.asarray(jax.random.normal(jax.random.key(0), (16, 64)))
  np.save(tmp_path / 'w.npy', w)
  flags = ('--formats=all', f'--weights={tmp_path / "w.npy"}')
  done = run(tmp_path / 'out', *flags)
  assert done.returncode == 0, done.stderr
  assert messages(done) == []
  named = {r['name'] for r in rows(tmp_path / 'out/formats.jsonl')}
  usable = {n for n in lb.formats.names() if lb.formats.get(n).bits <= 16}
  assert named == usable
  for kind in ('weights', 'sqnr'):
    specs = {r['spec'] for r in rows(tmp_path / f'out/{kind}.jsonl')}
    assert len(specs) > 50
    # Powers of two alone have no place for weights; no sign, a zero point.
    assert {f'{n}@g32' for n in usable if n[0] != 'u'} - specs == {
      'e8m0@g32',
      'halving3@g32',
      'sulq4_50@g32',
    }


@pytest.mark.slow
def test_the_embedded_weights_by_default(tmp_path):
  done = run(tmp_path / 'out', '--specs=mxfp4,nf4@g64')
  assert done.returncode == 0, done.stderr
  assert '44 tensors of the embedded decoder' in done.stdout
  assert 'Left out, of one axis: 13 tensors' in done.stdout
  first, second = rows(tmp_path / 'out/weights.jsonl')
  assert first['bits_per_weight'] == 4.25
  assert 18 < first['sqnr_db'] < second['sqnr_db'] < 22
  assert first['worst'].endswith('kernel')


@pytest.mark.parametrize(
  'flag, hint',
  [
    ('--formats=e2m1,int0', '1..16, got 0'),
    ('--formats=', 'No format is named'),
    ('--formats=fp32', '16 bits'),
    ('--specs=int4@q3', 'Unknown block'),
    ('--weights=none.npy', 'is not a file'),
    ('--axis=2', 'out of range'),
    ('stray', 'Unknown arguments'),
  ],
)
def test_bad_flags_fail_with_the_rule(tmp_path, flag, hint):
  np.save(tmp_path / 'w.npy', np.ones((4, 32), np.float32))
  given = [f'--weights={tmp_path / "w.npy"}', '--nopictures', flag]
  done = run(tmp_path / 'out', *given)
  assert done.returncode == 1
  assert hint in done.stdout + done.stderr
  assert 'Traceback' not in done.stdout + done.stderr
  assert not (tmp_path / 'out/weights.jsonl').exists()


def test_output_that_cannot_be_written(tmp_path):
  (tmp_path / 'file').write_text('')
  done = run(tmp_path / 'file', '--nocompare')
  assert done.returncode == 1
  assert '--out=DIR' in done.stdout + done.stderr
