import pytest

from lowbit.experiment import claims


def claim(measure, **changes):
  fields = {
    'key': 'k',
    'title': 't',
    'reference': 'r',
    'recipe': 'x',
    'says': 's',
    'published': 'p',
    'ablation': 'a',
    'measure': measure,
    'holds': lambda n: n['v'] > 1,
    'show': '{v:.1f}',
  }
  return claims.Claim(**{**fields, **changes})


def test_verdicts():
  good = claims.run(claim(lambda seed, off: {'v': 0.0 if off else 2.0 + seed}))
  assert (good['verdict'], good['measured'], good['ablated']) == (
    'holds',
    '3.0',
    '0.0',
  )
  always = claims.run(claim(lambda seed, off: {'v': 2.0}))
  assert always['verdict'] == 'cannot fail'
  never = claims.run(claim(lambda seed, off: {'v': 0.0}))
  assert never['verdict'] == 'does not show'

  def broken(seed, off):
    raise KeyError('w')

  assert claims.run(claim(broken))['verdict'] == "error: KeyError: 'w'"


def test_page_and_merge():
  row = claims.run(claim(lambda seed, off: {'v': 0.0 if off else 2.0}))
  other = {**row, 'key': 'j', 'says': 'a|b'}
  rows = claims.merge([{**row, 'verdict': 'stale'}], [row, other], ['k', 'j'])
  assert [r['key'] for r in rows] == ['j', 'k']
  assert 'a/b' in claims.page(rows)
  assert 'stale' not in claims.page(rows)
  assert claims.merge(rows, [], ['k']) == [row]


def test_key_must_be_the_file_name(tmp_path):
  (tmp_path / 'other.py').write_text(
    'import types\ndef get_claim():\n  return types.SimpleNamespace(key="k")\n'
  )
  with pytest.raises(ValueError, match='name of the file'):
    claims.load_all(tmp_path)
