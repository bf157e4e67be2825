"""What the pictures share: a figure without a display, colours, named rows."""

from collections.abc import Sequence

import numpy as np

from lowbit.experiment import report

FEW = 10  # More curves than this cannot be told apart in one panel.
ROW = 0.28  # Inches of a row of text.


def figure(width: float, height: float, **layout):
  """(figure, its axes by name), for `layout['mosaic']` or one panel 'all'."""
  report.check_plots('leave the path out')
  from matplotlib import figure as figure_lib
  from matplotlib.backends import backend_agg

  fig = figure_lib.Figure(figsize=(width, height), layout='constrained')
  backend_agg.FigureCanvasAgg(fig)
  mosaic = layout.pop('mosaic', [['all']])
  return fig, fig.subplot_mosaic(mosaic, **layout)


def colors(count: int) -> list:
  """Colours that differ, as far as they can."""
  import matplotlib

  if count <= FEW:
    return [f'C{i}' for i in range(count)]
  return list(matplotlib.colormaps['turbo'](np.linspace(0.03, 0.97, count)))


def label_width(labels: Sequence[str]) -> float:
  """Inches that the longest label takes beside a panel."""
  return 0.085 * max(map(len, labels))


def saved(fig, path):
  """The figure, written as a PNG if there is a path."""
  if path is not None:
    fig.savefig(path, dpi=120)
  return fig


def rows(ax, labels: Sequence[str], flip: bool = True) -> None:
  """Names at the rows of a panel, from the top."""
  ax.set_yticks(range(len(labels)), labels)
  ax.tick_params(axis='y', length=0)
  if flip:
    ax.set_ylim(len(labels) - 0.5, -0.5)
