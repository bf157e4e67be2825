"""Tables of formats: in numbers, code by code, and by their error."""

import csv
import math
import os
from collections.abc import Mapping, Sequence

from rich import table as rich_table

from lowbit import formats, quantize
from lowbit.analysis import accuracy
from lowbit.experiment import report

NUMBERS = ('bits', 'values', 'max', 'min', 'decades', 'least', 'most')
LONG = 256  # A table of more codes shows its ends; the CSV has all.
ENDS = 8
CODES = ('code', 'value', 'to the next', 'decimals')


def names(given: Sequence[str]) -> list[str]:
  """The names, each once; all stands for those of at most 16 bits.

  Raises:
    ValueError: If there are none, or one is unknown.
  """
  if not given:
    raise ValueError('No format is named. Name one, such as e2m1, or all.')
  if list(given) == ['all']:
    return [n for n in formats.names() if formats.get(n).bits <= 16]
  return list(dict.fromkeys(formats.get(name).name for name in given))


def default_specs(given: Sequence[str], block: int = 32) -> list[str]:
  """A spec for each format, by which weights can be quantized.

  Formats without a sign get a zero point. e8m0 is left out: powers of two alone
  have no place for weights.
  """
  chosen = [formats.get(name) for name in given]
  return [
    str(quantize.Spec(fmt, block, zero_point=bool(fmt.values()[0] >= 0)))
    for fmt in chosen
    if not isinstance(fmt, formats.E8M0)
  ]


def summaries(rows: Sequence[accuracy.Summary]) -> rich_table.Table:
  """One line a format: range, and correct decimals."""
  table = report.empty_table('format', *NUMBERS)
  for row in rows:
    table.add_row(
      row.name,
      f'{row.bits:g}',
      str(row.values),
      f'{row.max:.{5 if row.max < 1e5 else 3}g}',
      f'{row.smallest:.3g}',
      f'{row.decades:.2f}',
      _cell(row.least),
      _cell(row.most),
    )
  table.caption = (
    'min: the smallest positive value. least, most: correct decimals, at worst '
    'in a block (from a sixteenth of its absmax up) and at best anywhere.'
  )
  return table


def with_codes(given: Sequence[str]) -> list[formats.Format]:
  """The formats, but members of those with side data, which have the codes."""
  out = []
  for fmt in map(formats.get, given):
    if isinstance(fmt, formats.Choice):
      out += fmt.members
    else:
      out.append(fmt.inner if isinstance(fmt, formats.TwoSided) else fmt)
  return list(dict.fromkeys(out))


def codes(
  fmt: formats.Format | str, path: str | os.PathLike | None = None
) -> rich_table.Table:
  """One line a code; of long tables, the ends.

  Args:
    fmt: Format with codes of its own, see `with_codes`.
    path: CSV to write, with every code; None for none.
  """
  rows = accuracy.code_table(fmt)
  if path is not None:
    with open(path, 'w', newline='') as file:
      csv.writer(file).writerows([CODES, *rows])
  title = f'{formats.get(fmt).name}: {len(rows)} codes'
  table = report.empty_table(*CODES, title=title)
  cut = len(rows) > LONG
  for pattern, value, gap, decimals in rows[:ENDS] if cut else rows:
    table.add_row(pattern, f'{value:.9g}', _gap(gap), _cell(decimals))
  if cut:
    table.add_row(*['...'] * len(CODES))
  for pattern, value, gap, decimals in rows[-ENDS:] if cut else ():
    table.add_row(pattern, f'{value:.9g}', _gap(gap), _cell(decimals))
  return table


def sqnr(table: Mapping[str, Mapping[str, float]]) -> rich_table.Table:
  """One line a spec, one column a distribution, in dB."""
  kinds = list(next(iter(table.values())))
  out = report.empty_table('SQNR (dB)', *kinds)
  for spec, row in table.items():
    out.add_row(spec, *(f'{row[k]:.2f}' for k in kinds))
  return out


def _cell(decimals: float) -> str:
  """-inf is a number that is rounded to 0, NaN that there is none."""
  if math.isnan(decimals):
    return '-'
  return 'to 0' if decimals == -math.inf else f'{decimals:.2f}'


def _gap(gap: float) -> str:
  return '-' if math.isnan(gap) else f'{gap:.6g}'
