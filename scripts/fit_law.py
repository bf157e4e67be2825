"""Fits a scaling law to the rows of a sweep.

python scripts/fit_law.py docs/embedded_sweep.jsonl --law=qid
"""

import pathlib

import numpy as np
from absl import app, flags, logging

from lowbit.analysis import laws_fit, laws_solve
from lowbit.experiment import law_points, law_report, report, results

_LAW = flags.DEFINE_enum(
  'law', 'chinchilla', list(law_points.BY_NAME), 'Which.'
)
_DELTA = flags.DEFINE_float(
  'delta', 1e-2, 'Log error beyond which a run counts less (Huber).'
)
_DRAWS = flags.DEFINE_integer('draws', 100, 'Of the bootstrap; 0 for none.')
_OUT = flags.DEFINE_string('out', '', 'PNG; empty for one beside the rows.')
_PICTURE = flags.DEFINE_bool('picture', True, 'Needs matplotlib.')


def main(argv):
  """Fits, and shows coefficients, the worst runs, and a picture."""
  if len(argv) != 2:
    raise app.UsageError('Give one results file: fit_law.py results.jsonl')
  logging.set_verbosity(logging.WARNING)  # JAX tells of absent backends.
  console, path = report.make_console(), pathlib.Path(argv[1])
  try:
    if _PICTURE.value:
      report.check_plots('pass --picture=False')
    if not path.is_file():
      raise ValueError(f'{path} is not a file.')
    points = law_points.BY_NAME[_LAW.value](results.read(path))
    options = dict(delta=_DELTA.value)
    found = laws_fit.fit(points.law, points.inputs, points.target, **options)
  except (ValueError, ImportError) as error:
    raise app.UsageError(str(error)) from error
  data = (points.inputs, points.target)
  spans = {}
  if _DRAWS.value:
    spans = laws_fit.bootstrap(found, *data, **options, count=_DRAWS.value)
  console.print(f'{found.law.name}: {found.law.formula} ', markup=False)
  console.print(law_report.coefficients(found, spans))
  console.print(law_report.summary(points, found))
  _held_out(console, points, options)
  console.print(law_report.predictions(points, found))
  if _LAW.value == 'inference':
    _best_width(console, points)
  if _PICTURE.value:
    picture = _OUT.value or path.with_name(f'{path.stem}_{_LAW.value}.png')
    law_report.draw(points, found, picture)
    console.print(f'Picture: {picture}')


def _held_out(console, points, options):
  out = law_report.largest(points)
  try:
    error = laws_fit.held_out_error(
      points.law, points.inputs, points.target, out, **options
    )
  except ValueError as why:
    console.print(f'Nothing can be held out. {why}')
    return
  spread = float(np.sqrt(np.mean(error**2)))
  console.print(
    f'Held out, the {out.sum()} points of the largest {points.law.inputs[0]}: '
    f'log error {spread:.4f} (root mean square).'
  )


def _best_width(console, points):
  x = points.inputs
  shares = laws_solve.best_width(x['bits'], x['total_bits'], points.target)
  text = ', '.join(f'{k:g} bits {v:.0%}' for k, v in shares.items())
  console.print(f'Least loss at equal total bits: {text} of the budgets.')


if __name__ == '__main__':
  app.run(main)
