"""Shows formats: their codes, range, accuracy, and what they do to weights.

python scripts/formats.py
python scripts/formats.py --formats=e2m1,int4,nf4 --codes
python scripts/formats.py --formats=all --nocompare
python scripts/formats.py --specs=mxfp4,nf4@g64 --weights=model.safetensors
"""

import dataclasses
import math

import rich.progress
from absl import app, flags, logging

import lowbit as lb
from lowbit.analysis import accuracy, errors
from lowbit.data import embedded, files
from lowbit.experiment import (
  error_plots,
  format_plots,
  format_tables,
  report,
  results,
)

_FORMATS = flags.DEFINE_list(
  'formats',
  'int4,e2m1,nf4,dint4,posit8_1,e4m3',
  'Names of formats, or all: every one of at most 16 bits.',
)
_SPECS = flags.DEFINE_list(
  'specs', None, 'Specs for the errors; by default the formats, groups of 32.'
)
_WEIGHTS = flags.DEFINE_string(
  'weights',
  None,
  'A .safetensors or .npy file; by default, the embedded model.',
)
_AXIS = flags.DEFINE_integer(
  'axis',
  None,
  'Contraction axis of all weights; by default -2 for Flax kernels [in, out], '
  'else -1, [out, in].',
)
_COMPARE = flags.DEFINE_bool('compare', True, 'Quantize the weights.')
_CODES = flags.DEFINE_bool('codes', False, 'Show every code, and write a CSV.')
_PICTURES = flags.DEFINE_bool('pictures', True, 'Needs matplotlib.')
_OUT = flags.DEFINE_string('out', 'results/formats', 'Folder for all output.')


def main(argv):
  """Prints tables, writes pictures and one JSON line a format and a spec."""
  if argv[1:]:
    raise app.UsageError(f'Unknown arguments {argv[1:]}.')
  logging.set_verbosity(logging.WARNING)  # JAX tells of absent backends.
  console = report.make_console()
  try:
    names = format_tables.names(_FORMATS.value)
    rows = [accuracy.summary(name) for name in names]
    specs = _SPECS.value or format_tables.default_specs(names)
    specs = list(dict.fromkeys(str(lb.Spec.parse(s)) for s in specs))
    weights = _weights() if _COMPARE.value and specs else None
    out = results.check_writable(_OUT.value)
    if _PICTURES.value:
      report.check_plots('pass --nopictures')
    _formats(console, rows, out)
    if weights is not None:
      _compare(console, weights, specs, out)
    if specs:
      _sqnr(console, specs, out)
  except (ValueError, TypeError, ImportError) as error:
    raise app.UsageError(str(error)) from error
  console.print(f'Rows{" and pictures" * _PICTURES.value}: {out}')


def _weights():
  if _WEIGHTS.value is None:
    return embedded.load()[1]
  found = files.weights(_WEIGHTS.value)
  return found['array'] if list(found) == ['array'] else found


def _formats(console, rows, out):
  console.print(format_tables.summaries(rows))
  results.append_new(out / 'formats.jsonl', map(dataclasses.asdict, rows))
  names = [row.name for row in rows]
  for fmt in format_tables.with_codes(names) if _CODES.value else ():
    console.print(format_tables.codes(fmt, out / f'codes_{fmt.name}.csv'))
  if _PICTURES.value:
    format_plots.number_lines(names, out / 'number_lines.png')
    if not all(math.isnan(row.most) for row in rows):
      format_plots.accuracy_curves(names, out / 'accuracy.png')


def _compare(console, weights, specs, out):
  with console.status('Quantizing the weights'):
    found = lb.compare(weights, specs, _AXIS.value)
  source = _WEIGHTS.value or 'the embedded decoder'
  table = found.table()
  table.title = f'{found.tensors} tensors of {source}'
  console.print(table)
  if found.left_out:
    console.print(f'{len(found.left_out)} tensors of one axis were left out.')
  lines = [{'weights': source, **dataclasses.asdict(r)} for r in found.rows]
  for line in lines:
    del line['profile']
  results.append_new(out / 'weights.jsonl', lines)
  if _PICTURES.value:
    found.draw(out / 'weights.png')


def _sqnr(console, specs, out):
  table = {}
  for spec in rich.progress.track(
    specs,
    'SQNR by distribution',
    console=console,
    transient=True,
    disable=not console.is_terminal,
  ):
    table |= errors.sqnr_table([spec])
  console.print(format_tables.sqnr(table))
  lines = [{'spec': spec, **row} for spec, row in table.items()]
  results.append_new(out / 'sqnr.jsonl', lines)
  if _PICTURES.value:
    error_plots.sqnr_dots(table, out / 'sqnr.png')


if __name__ == '__main__':
  app.run(main)
