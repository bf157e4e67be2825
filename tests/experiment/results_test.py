import json
import os

import numpy as np
import pytest

from lowbit.experiment import evaluate, report, results


def test_hash_is_stable_over_order_and_tuples():
  a = results.config_hash({'a': 1, 'b': (1, 2.5)})
  assert a == results.config_hash({'b': [1, 2.5], 'a': 1})
  assert a != results.config_hash({'b': [1, 2.5], 'a': 2})
  assert len(a) == 16


def test_rows_come_back_and_bad_lines_are_set_aside(tmp_path):
  path = tmp_path / 'results.jsonl'
  assert results.read(path) == []
  results.append(path, {'a': 1})
  results.append(path, {'loss': float('nan')})
  with path.open('a') as file:
    file.write('{"half": 1')
  with pytest.warns(UserWarning, match='set aside'):
    results.append(path, {'b': 2})
  assert results.read(path) == [
    {'a': 1},
    {'loss': None, 'status': 'diverged'},
    {'b': 2},
  ]
  with path.open('a') as file:
    file.write('rubbish\n[1]\n')
  with pytest.warns(UserWarning, match='2 unreadable'):
    assert len(results.read(path)) == 3
  assert len(results.read(path)) == 3
  rejected = (tmp_path / 'results.jsonl.rejected').read_text().splitlines()
  assert rejected == ['{"half": 1', 'rubbish', '[1]']


def test_finished_runs_are_found(tmp_path):
  path, config = tmp_path / 'r.jsonl', {'seed': 1}
  row = {'config_hash': results.config_hash(config), 'status': 'failed'}
  results.append(path, row)
  assert results.finished(path, config) is None
  results.append(path, {**row, 'status': 'ok'})
  assert results.finished(path, config)['status'] == 'ok'
  assert results.finished(path, {'seed': 2}) is None


def test_unwritable_output(tmp_path):
  (tmp_path / 'file').write_text('')
  with pytest.raises(ValueError, match=r'`out`.*--out=DIR'):
    results.check_writable(tmp_path / 'file')
  assert results.check_writable(tmp_path / 'a/b').is_dir()
  assert os.listdir(tmp_path / 'a/b') == []


ROWS = [
  {
    'recipe': 'float32',
    'bits_per_weight': 32.0,
    'megabytes': 4.0,
    'bits_per_byte': 1.0,
    'delta': 0.0,
    'stderr': 0.0,
    'kl': 0.0,
    'seconds': 1.0,
    'status': 'ok',
  },
  {
    'recipe': 'int4@g64',
    'bits_per_weight': 4.5,
    'megabytes': 0.6,
    'bits_per_byte': 1.1,
    'delta': 0.1,
    'stderr': 0.01,
    'kl': 0.05,
    'seconds': 2.0,
    'status': 'ok',
    'activation': 'int8@token',
  },
  {
    'recipe': 'worse',
    'bits_per_weight': 5.0,
    'megabytes': 0.7,
    'bits_per_byte': 1.2,
    'delta': 0.2,
    'stderr': 0.01,
    'kl': 0.05,
    'seconds': 2.0,
    'status': 'ok',
  },
  {
    'recipe': 'gone',
    'bits_per_weight': 2.0,
    'bits_per_byte': None,
    'status': 'diverged',
  },
]


def test_pareto_table_and_picture(tmp_path):
  assert [r['recipe'] for r in report.pareto(ROWS)] == ['int4@g64', 'float32']
  table = report.table(ROWS)
  cells = [list(c.cells) for c in table.columns]
  assert cells[0] == ['float32 *', 'int4@g64 *', 'worse', 'gone']
  assert cells[4][1] == '+0.1000 ± 0.0100'
  assert cells[3][3] == 'diverged'
  report.plot_pareto(ROWS, tmp_path / 'p.png')
  assert (tmp_path / 'p.png').read_bytes().startswith(b'\x89PNG')


def test_standard_error_is_that_of_independent_shards():
  x = np.random.default_rng(0).normal(size=8000)
  np.testing.assert_allclose(
    evaluate.standard_error(x), 1 / np.sqrt(8000), rtol=0.6
  )
  assert np.isnan(evaluate.standard_error(x[:1]))
  json.dumps(evaluate.standard_error(x))
