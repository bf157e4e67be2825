"""Shows formats: their codes, ranges and accuracy, as tables and pictures.

python scripts/formats.py --formats=e2m1,int4,nf4,posit8_1,e4m3
python scripts/formats.py --formats=e2m1 --codes
python scripts/formats.py --specs=mxfp4,nvfp4,nf4@g64,bitmod4@g128
"""

import dataclasses

import rich.console
import rich.progress
import rich.table
from absl import app, flags

from lowbit import formats, quantize
from lowbit.analysis import accuracy
from lowbit.experiment import format_plots, report, results

_FORMATS = flags.DEFINE_list(
  'formats', 'int4,e2m1,nf4,dint4,posit8_1,e4m3', 'Names of formats.'
)
_SPECS = flags.DEFINE_list(
  'specs', None, 'Specs for the SQNR; by default each format in groups of 32.'
)
_CODES = flags.DEFINE_bool('codes', False, 'Print every code.')
_PICTURES = flags.DEFINE_bool('pictures', True, 'Needs matplotlib.')
_OUT = flags.DEFINE_string('out', 'results/formats', 'Folder for all output.')


def main(argv):
  """Prints tables, writes pictures and one JSON line a format and a spec."""
  if argv[1:]:
    raise app.UsageError(f'Unknown arguments {argv[1:]}.')
  names = _FORMATS.value
  try:
    chosen = [formats.get(name) for name in names]
    for fmt in chosen:
      if fmt.bits > 16 or isinstance(fmt, formats.SideFormat):
        raise ValueError(
          f'`--formats` takes formats with a table, of at most 16 bits; got '
          f'{fmt.name}. Give it in --specs.'
        )
    specs = _SPECS.value or [f'{fmt.name}@g32' for fmt in chosen]
    specs = [str(quantize.Spec.parse(s)) for s in specs]
    out = results.check_writable(_OUT.value)
    if _PICTURES.value:
      report.check_plots()
  except (ValueError, TypeError, ImportError) as error:
    raise app.UsageError(str(error)) from error
  console = rich.console.Console()
  rows = [dataclasses.asdict(accuracy.summary(fmt)) for fmt in chosen]
  console.print(_summaries(rows))
  if _CODES.value:
    for fmt in chosen:
      console.print(_codes(fmt))
  table = {}
  for spec in rich.progress.track(specs, 'SQNR', console=console):
    table |= format_plots.sqnr_table([spec])
  console.print(_sqnr(table))
  for row in rows:
    results.append(out / 'formats.jsonl', row)
  for spec, row in table.items():
    results.append(out / 'formats.jsonl', {'spec': spec, **row})
  if _PICTURES.value:
    format_plots.number_lines(names, out / 'number_lines.png')
    format_plots.accuracy_curves(names, out / 'accuracy.png')
    format_plots.sqnr_bars(table, out / 'sqnr.png')
  console.print(f'Rows and pictures: {out}')


def _summaries(rows):
  table = rich.table.Table()
  heads = ('format', 'bits', 'values', 'max', 'smallest', 'decades', 'decimals')
  for head in heads:
    table.add_column(head, justify='left' if head == 'format' else 'right')
  for row in rows:
    table.add_row(
      row['name'],
      f'{row["bits"]:g}',
      str(row['values']),
      f'{row["max"]:.6g}',
      f'{row["smallest"]:.4g}',
      f'{row["decades"]:.2f}',
      f'{row["accuracy"]:.2f}',
    )
  return table


def _codes(fmt):
  table = rich.table.Table('code', 'value', 'to the next', title=fmt.name)
  for pattern, value, gap in accuracy.code_table(fmt):
    table.add_row(pattern, f'{value:.9g}', f'{gap:.6g}')
  return table


def _sqnr(table):
  kinds = list(next(iter(table.values())))
  out = rich.table.Table('SQNR (dB)', *kinds)
  for spec, row in table.items():
    out.add_row(spec, *(f'{row[k]:.2f}' for k in kinds))
  return out


if __name__ == '__main__':
  app.run(main)
