"""Papers as claims that can fail: a measurement, a condition, an ablation.

A claim file configs/papers/<key>.py has `get_claim() -> Claim`. The condition
must hold with the paper's idea and fail without it; a condition that holds both
ways checks nothing, and its verdict says so.
"""

import dataclasses
import importlib.util
import json
import pathlib
import time
from collections.abc import Callable, Sequence

import numpy as np

Numbers = dict[str, float]
STORE, PAGE = 'docs/claims.jsonl', 'PAPERS.md'


@dataclasses.dataclass(frozen=True)
class Claim:
  """What a paper says, and how it is measured here."""

  key: str  # The card's key, and the file's name.
  title: str
  reference: str  # arXiv:...
  recipe: str  # What of lowbit runs.
  says: str
  published: str
  ablation: str  # What is switched off.
  measure: Callable[[int, bool], Numbers]  # (seed, ablated) -> numbers.
  holds: Callable[[Numbers], bool]  # Of the means over seeds.
  show: str  # Format string over the means.
  seeds: tuple[int, ...] = (0, 1, 2)
  fast: bool = True  # At most about a minute.


def load(path: str | pathlib.Path) -> Claim:
  """The claim of one file.

  Raises:
    ValueError: If its key is not the file's name.
  """
  path = pathlib.Path(path)
  spec = importlib.util.spec_from_file_location(f'claim_{path.stem}', path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  claim = module.get_claim()
  if claim.key != path.stem:
    raise ValueError(
      f'Claim {claim.key!r} lies in {path.name}; its key must be the name of '
      'the file.'
    )
  return claim


def load_all(folder: str | pathlib.Path) -> list[Claim]:
  """All claims of a folder, by key."""
  return [load(path) for path in sorted(pathlib.Path(folder).glob('*.py'))]


def means(claim: Claim, ablated: bool) -> Numbers:
  """Each number's mean over the claim's seeds."""
  runs = [claim.measure(seed, ablated) for seed in claim.seeds]
  return {k: float(np.mean([run[k] for run in runs])) for k in runs[0]}


def run(claim: Claim) -> dict:
  """Runs a claim and its ablation; returns a row for the store.

  The verdict is 'holds', 'does not show' (it fails with the idea), 'cannot
  fail' (it holds without the idea), or 'error: ...'.
  """
  start = time.monotonic()
  row = {
    'key': claim.key,
    'title': claim.title,
    'reference': claim.reference,
    'recipe': claim.recipe,
    'says': claim.says,
    'published': claim.published,
    'ablation': claim.ablation,
    'measured': '-',
    'ablated': '-',
  }
  try:
    with_idea, without = means(claim, False), means(claim, True)
    row['measured'] = claim.show.format(**with_idea)
    row['ablated'] = claim.show.format(**without)
    row['verdict'] = _verdict(claim.holds(with_idea), claim.holds(without))
  except Exception as error:  # A claim that breaks is a row, not the end.
    row['verdict'] = f'error: {type(error).__name__}: {error}'
  row['seconds'] = round(time.monotonic() - start, 1)
  return row


def _verdict(holds: bool, holds_without: bool) -> str:
  if not holds:
    return 'does not show'
  return 'cannot fail' if holds_without else 'holds'


def merge(old: Sequence[dict], new: Sequence[dict], keys: Sequence[str]):
  """Rows by key, new ones first choice; only those of `keys`, sorted."""
  rows = {row['key']: row for row in [*old, *new]}
  return [rows[key] for key in sorted(keys) if key in rows]


def page(rows: Sequence[dict]) -> str:
  """PAPERS.md: one line a paper."""
  lines = [
    '# Papers',
    '',
    'Each row is a claim that was run here, with its ablation, by',
    '`python scripts/reproduce.py --papers=all --write`. A verdict other than',
    '*holds* stays as it was measured. This page is generated from',
    f'`{STORE}`.',
    '',
    '| paper | recipe | says | published | measured | ablated | ablation |'
    ' verdict | seconds |',
    '|' + '---|' * 9,
  ]
  for row in rows:
    cells = [
      f'{row["title"]} ({row["reference"]})',
      f'`{row["recipe"]}`',
      row['says'],
      row['published'],
      row['measured'],
      row['ablated'],
      row['ablation'],
      row['verdict'],
      f'{row["seconds"]:.1f}',
    ]
    lines.append('| ' + ' | '.join(c.replace('|', '/') for c in cells) + ' |')
  return '\n'.join(lines) + '\n'


def write(root: str | pathlib.Path, rows: Sequence[dict]) -> None:
  """Writes the store and the page under `root`."""
  root = pathlib.Path(root)
  (root / STORE).parent.mkdir(parents=True, exist_ok=True)
  (root / STORE).write_text(''.join(json.dumps(row) + '\n' for row in rows))
  (root / PAGE).write_text(page(rows))
