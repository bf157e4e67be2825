"""Pictures of errors: SQNR by distribution, and what a spec does to weights."""

import itertools
import math
import os
from collections.abc import Mapping, Sequence

import numpy as np

from lowbit.analysis import errors
from lowbit.experiment import canvas

SURE = 10  # The error of fewer weights than this is not drawn.


def sqnr_dots(
  table: Mapping[str, Mapping[str, float]],
  path: str | os.PathLike | None = None,
):
  """One row a spec, one dot a distribution; an exact spec has a word instead.

  Args:
    table: spec -> distribution -> dB, from `errors.sqnr_table`.
    path: PNG to write; None for none.

  Returns:
    The matplotlib figure.
  """
  width = 8 + canvas.label_width(table)
  fig, axes = canvas.figure(width, canvas.ROW * len(table) + 1.6)
  ax = axes['all']
  kinds = list(next(iter(table.values())))
  for kind, marker in zip(kinds, itertools.cycle('oDs^v*')):
    x = np.asarray([row[kind] for row in table.values()])
    place = np.arange(len(table))
    shown = np.isfinite(x)
    ax.plot(x[shown], place[shown], marker, label=kind, ms=6, alpha=0.85)
  for place, row in enumerate(table.values()):
    if all(v == math.inf for v in row.values()):
      where = {'transform': ax.get_yaxis_transform(), 'va': 'center'}
      ax.text(0.01, place, 'exact', **where)
  canvas.rows(ax, list(table))
  ax.set_xlabel('SQNR (dB); 6.02 dB are one bit')
  ax.grid(alpha=0.25)
  fig.legend(loc='outside upper center', ncols=len(kinds), fontsize=9)
  return canvas.saved(fig, path)


def weight_errors(
  rows: Sequence[errors.Errors],
  counts: np.ndarray,
  limit: float,
  path: str | os.PathLike | None = None,
):
  """Histogram of weights, the error by value, and SQNR against bits.

  Args:
    rows: Of `errors.measure`, all with this `limit`.
    counts: Weights in each of `errors.BINS` bins over [-limit, limit].
    limit: As above.
    path: PNG to write; None for none.

  Returns:
    The matplotlib figure.
  """
  labels = [
    f'{r.spec}: {_db(r.sqnr_db)}, {r.bits_per_weight:.2f} bits' for r in rows
  ]
  columns = math.ceil(len(rows) / 24)
  fig, axes = canvas.figure(
    11 + columns * (0.4 + canvas.label_width(labels)),
    6,
    mosaic=[['weights', 'bits'], ['errors', 'bits']],
    width_ratios=[3, 2],
  )
  limit = limit or 1.0
  edges = np.linspace(-limit, limit, len(counts) + 1)
  axes['weights'].stairs(counts, edges, fill=True, color='0.6')
  axes['weights'].set(yscale='log', ylabel='weights', ylim=(0.7, None))
  middles = (edges[1:] + edges[:-1]) / 2
  lines = []
  markers = itertools.cycle('oDs^v<>P*X')
  for row, color, marker in zip(rows, canvas.colors(len(rows)), markers):
    profile = np.asarray(row.profile)
    profile = np.where((profile > 0) & (counts >= SURE), profile, np.nan)
    axes['errors'].plot(middles, profile, color=color, lw=1.2)
    style = {'marker': marker, 'color': color, 'ms': 8, 'alpha': 0.8}
    if math.isfinite(row.sqnr_db):
      axes['bits'].plot(row.bits_per_weight, row.sqnr_db, **style)
    lines.append(_line(**style))
  axes['errors'].set(
    yscale='log',
    xlabel='value of the weight',
    ylabel='RMS error',
    ylim=(_least_shown(rows, counts), None),
  )
  axes['errors'].sharex(axes['weights'])
  axes['weights'].tick_params(labelbottom=False)
  axes['bits'].set(xlabel='bits per weight at rest', ylabel='SQNR (dB)')
  axes['bits'].xaxis.get_major_locator().set_params(integer=True)
  for ax in axes.values():
    ax.grid(alpha=0.25)
  fig.legend(
    lines, labels, loc='outside right upper', ncols=columns, fontsize=8
  )
  return canvas.saved(fig, path)


def _db(value: float) -> str:
  return 'exact' if value == math.inf else f'{value:.1f} dB'


def _line(**style):
  """What stands for a spec in the legend: its line and its marker."""
  from matplotlib import lines

  return lines.Line2D([], [], lw=1.2, **style)


def _least_shown(rows, counts: np.ndarray) -> float | None:
  """A thirtieth of the least overall error: the largest of each block is exact.

  None if all are exact, or none is known.
  """
  total = max(int(counts.sum()), 1)
  rms = [
    math.sqrt(np.nansum(np.square(r.profile) * counts) / total) for r in rows
  ]
  return min((r / 30 for r in rms if r > 0), default=None)
