"""Times a suite, each thing next to what it is measured against.

python scripts/bench.py --suite=quantize
python scripts/bench.py --suite=quantize --only=mxfp4 --size=1024

A suite is a module lowbit/experiment/bench_NAME.py with a function `rows` from
`timing.Settings` to rows.
"""

import importlib
import pkgutil

import jax
import rich.console
import rich.table
from absl import app, flags

from lowbit import experiment
from lowbit.experiment import results, timing

_PREFIX = 'bench_'
_SUITES = sorted(
  module.name.removeprefix(_PREFIX)
  for module in pkgutil.iter_modules(experiment.__path__)
  if module.name.startswith(_PREFIX)
)
_SUITE = flags.DEFINE_enum('suite', 'quantize', _SUITES, 'What to time.')
_SIZE = flags.DEFINE_integer('size', 4096, 'Of the arrays; see the suite.')
_REPEATS = flags.DEFINE_integer('repeats', 7, 'Timed runs; the least counts.')
_ONLY = flags.DEFINE_string('only', '', 'Regular expression of the cases.')
_OUT = flags.DEFINE_string('out', 'results/bench', 'Folder of the JSON lines.')


def main(argv):
  """Prints the rows of a suite as they come, then as a table."""
  if argv[1:]:
    raise app.UsageError(f'Unknown arguments {argv[1:]}.')
  try:
    settings = timing.Settings(_SIZE.value, _REPEATS.value, _ONLY.value)
    out = results.check_writable(_OUT.value) / f'{_SUITE.value}.jsonl'
  except ValueError as error:
    raise app.UsageError(str(error)) from error
  suite = importlib.import_module(f'lowbit.experiment.{_PREFIX}{_SUITE.value}')
  console, rows = rich.console.Console(), []
  common = {
    'suite': _SUITE.value,
    'size': settings.size,
    'device': jax.devices()[0].device_kind,
    'jax': jax.__version__,
  }
  with console.status('compiling') as status:
    for row in suite.rows(settings):
      rows.append(row)
      results.append(out, common | row)
      status.update(' '.join(_text(value) for value in row.values()))
  console.print(_table(rows))
  console.print(f'{common["device"]}, jax {common["jax"]}. Rows: {out}')


def _table(rows):
  heads = list(dict.fromkeys(key for row in rows for key in row))
  table = rich.table.Table(*(head.replace('_', ' ') for head in heads))
  for row in rows:
    table.add_row(*(_text(row.get(head, '')) for head in heads))
  return table


def _text(value) -> str:
  return f'{value:.3g}' if isinstance(value, float) else str(value)


if __name__ == '__main__':
  app.run(main)
