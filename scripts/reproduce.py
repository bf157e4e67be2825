"""Runs the claims of papers, each with its ablation, and writes PAPERS.md.

python scripts/reproduce.py --papers=gptq,awq
python scripts/reproduce.py --papers=all --write
"""

import pathlib

import rich.table
from absl import app, flags, logging

from lowbit.experiment import claims, report, results

_ROOT = pathlib.Path(__file__).resolve().parent.parent
_PAPERS = flags.DEFINE_string('papers', 'all', 'Keys, or all.')
_FAST = flags.DEFINE_bool('fast', False, 'Leave out the slow ones.')
_WRITE = flags.DEFINE_bool('write', False, 'Write PAPERS.md and its store.')


def main(argv):
  """Runs the chosen claims; exits with 1 unless all hold."""
  del argv
  logging.set_verbosity(logging.WARNING)  # JAX tells of absent backends.
  console = report.make_console()
  every = {c.key: c for c in claims.load_all(_ROOT / 'configs/papers')}
  keys = list(every) if _PAPERS.value == 'all' else _PAPERS.value.split(',')
  unknown = sorted(set(keys) - set(every))
  if unknown:
    raise app.UsageError(f'No claim for {unknown}. Known: {sorted(every)}.')
  rows = []
  for key in keys:
    if _FAST.value and not every[key].fast:
      continue
    with console.status(key):
      rows.append(claims.run(every[key]))
    console.print(f'{key}: {rows[-1]["verdict"]} ({rows[-1]["seconds"]} s)')
  table = rich.table.Table(
    'paper', 'published', 'measured', 'ablated', 'verdict'
  )
  for row in rows:
    table.add_row(
      row['key'],
      row['published'],
      row['measured'],
      row['ablated'],
      row['verdict'],
    )
  console.print(table)
  if _WRITE.value:
    old = results.read(_ROOT / claims.STORE)
    claims.write(_ROOT, claims.merge(old, rows, list(every)))
  if any(row['verdict'] != 'holds' for row in rows):
    raise SystemExit(1)


if __name__ == '__main__':
  app.run(main)
