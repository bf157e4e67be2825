"""A fitted law as tables and as a picture."""

import os

import numpy as np

from lowbit.analysis import laws_fit
from lowbit.experiment import law_points, report


def coefficients(found: laws_fit.Fit, spans: dict, title: str = ''):
  """Each coefficient: fitted, 95 % interval, and as published."""
  published = found.law.published
  first = next(iter(published), None)
  heads = ['fitted', 'low', 'high', *([first] if first else [])]
  out = report.empty_table('coefficient', *heads, title=title)
  for name, value in found.coefficients.items():
    span = spans.get(name)
    ends = [_text(v) for v in span] if span else ['held', '']
    known = {**found.law.held, **published[first]}.get(name) if first else None
    out.add_row(name, _text(value), *ends, *([_text(known)] if first else []))
  return out


def _text(value) -> str:
  return '-' if value is None else f'{value:.4g}'


def predictions(points: law_points.Points, found: laws_fit.Fit, count: int = 8):
  """The runs that the law misses most."""
  out = report.empty_table(
    found.law.inputs[0], *found.law.inputs[1:], 'measured', 'law', 'log error'
  )
  value = found.predict(**points.inputs)
  for i in np.argsort(-np.abs(found.residuals))[:count]:
    cells = [f'{points.inputs[k][i]:g}' for k in found.law.inputs]
    out.add_row(
      *cells,
      f'{points.target[i]:.4f}',
      f'{value[i]:.4f}',
      f'{found.residuals[i]:+.4f}',
    )
  return out


def summary(points: law_points.Points, found: laws_fit.Fit) -> str:
  """Points, spread of the residuals, R^2, and how sure the basin is."""
  r2 = laws_fit.r_squared(points.target, found.predict(**points.inputs))
  return (
    f'{len(points.target)} points ({points.left_out} rows or values left out); '
    f'standard deviation of log residuals {np.std(found.residuals):.4f}, '
    f'R^2 {r2:.3f}; cost {found.cost:.4g}, next basin {found.second:.4g}.'
  )


def largest(points: law_points.Points) -> np.ndarray:
  """bool [n]: points of the largest model, or for want of it the most bits."""
  first = points.inputs[points.law.inputs[0]]
  return first == first.max()


def draw(
  points: law_points.Points, found: laws_fit.Fit, path: str | os.PathLike
) -> None:
  """Measured against predicted, and residuals, colored by the last input."""
  report.check_plots('pass --picture=False')
  from matplotlib import figure
  from matplotlib.backends import backend_agg

  fig = figure.Figure(figsize=(10, 4.6), layout='constrained')
  backend_agg.FigureCanvasAgg(fig)
  left, right = fig.subplots(1, 2)
  value, last = found.predict(**points.inputs), found.law.inputs[-1]
  kinds = np.unique(points.inputs[last])
  for kind in kinds:
    mask = points.inputs[last] == kind
    label = f'{last} {kind:g}' if len(kinds) <= 8 else None
    left.loglog(value[mask], points.target[mask], 'o', ms=4, label=label)
    right.semilogx(value[mask], found.residuals[mask], 'o', ms=4)
  ends = [min(value.min(), points.target.min()), max(value.max(), 1e-9)]
  left.loglog(ends, ends, color='black', lw=1)
  right.axhline(0, color='black', lw=1)
  left.set(xlabel=f'law: {found.law.target}', ylabel='measured')
  right.set(xlabel=f'law: {found.law.target}', ylabel='log(measured / law)')
  fig.suptitle(f'{found.law.name}: {found.law.formula}', fontsize=10)
  if len(kinds) <= 8:
    left.legend(fontsize=8)
  fig.savefig(path, dpi=110)
