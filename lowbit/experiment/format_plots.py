"""Pictures of formats: number lines, accuracy by magnitude, SQNR by tensor."""

import os
from collections.abc import Mapping, Sequence

import numpy as np

from lowbit import formats
from lowbit.analysis import accuracy
from lowbit.experiment import report


def _figure(width: float, height: float):
  report.check_plots()
  from matplotlib import figure
  from matplotlib.backends import backend_agg

  fig = figure.Figure(figsize=(width, height), layout='constrained')
  backend_agg.FigureCanvasAgg(fig)
  return fig, fig.add_subplot()


def number_lines(names: Sequence[str], path: str | os.PathLike | None = None):
  """One line a format: a tick for each value, scaled to its largest.

  Args:
    names: Formats.
    path: PNG to write; None for none.

  Returns:
    The matplotlib figure.
  """
  fig, ax = _figure(10, 0.5 * len(names) + 1)
  for row, name in enumerate(names):
    values = formats.get(name).values()
    ax.axhline(row, color='0.85', lw=0.8, zorder=0)
    scaled = values / np.abs(values).max()
    thin = 1.2 if len(values) <= 64 else 0.3
    ax.vlines(scaled, row - 0.35, row + 0.35, color=f'C{row}', lw=thin)
  ax.set_yticks(range(len(names)), names)
  ax.invert_yaxis()
  ax.set_xlabel('value / largest magnitude')
  return _saved(fig, path)


def accuracy_curves(
  names: Sequence[str], path: str | os.PathLike | None = None
):
  """Decimal accuracy by magnitude; formats that end are cut where they end.

  Args, Returns: As `number_lines`.
  """
  fig, ax = _figure(10, 5)
  for name in names:
    summary = accuracy.summary(name)
    x = np.geomspace(summary.smallest / 2, summary.max * 2, 4000)
    y = accuracy.decimal_accuracy(name, x)
    # The worst case nearby: without the peaks at exact values.
    floor = np.min(np.lib.stride_tricks.sliding_window_view(y, 60), axis=1)
    ax.plot(x[30:-29], floor, label=name)
  ax.set_xscale('log')
  ax.set_ylim(bottom=0)
  ax.set_xlabel('magnitude')
  ax.set_ylabel('correct decimals, worst nearby')
  ax.grid(alpha=0.25)
  ax.legend(fontsize=8)
  return _saved(fig, path)


def sqnr_bars(
  table: Mapping[str, Mapping[str, float]],
  path: str | os.PathLike | None = None,
):
  """Grouped bars: spec -> tensor -> dB.

  Args:
    table: From `sqnr_table`.
    path: PNG to write; None for none.

  Returns:
    The matplotlib figure.
  """
  fig, ax = _figure(max(8, 0.9 * len(table) + 3), 5)
  kinds = list(next(iter(table.values())))
  width = 0.8 / len(kinds)
  place = np.arange(len(table))
  for i, kind in enumerate(kinds):
    heights = [row[kind] for row in table.values()]
    ax.bar(
      place + (i - (len(kinds) - 1) / 2) * width, heights, width, label=kind
    )
  ax.set_xticks(place, list(table), rotation=25, ha='right')
  ax.set_ylabel('SQNR (dB)')
  ax.grid(alpha=0.25, axis='y')
  ax.legend(fontsize=8)
  return _saved(fig, path)


def sqnr_table(specs: Sequence[str]) -> dict[str, dict[str, float]]:
  """spec -> tensor -> dB on the tensors of `accuracy.tensors`."""
  data = accuracy.tensors()
  return {
    spec: {name: accuracy.sqnr_db(x, spec) for name, x in data.items()}
    for spec in specs
  }


def _saved(fig, path):
  if path is not None:
    fig.savefig(path, dpi=120)
  return fig
