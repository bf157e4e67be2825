"""Pictures of formats: number lines, and accuracy by magnitude."""

import os
from collections.abc import Sequence

import numpy as np

from lowbit import formats
from lowbit.analysis import accuracy
from lowbit.experiment import canvas

TICKS = 256  # More values than this are drawn as their density.
SHADES = 600  # Columns of a picture of densities or of rows of colour.
DECADES = (1e-12, 1e12)  # Magnitudes that are shown of wide formats.


def number_lines(names: Sequence[str], path: str | os.PathLike | None = None):
  """One line a format: a tick for each value, in units of the scale target.

  The absmax of a block meets 1, so that the picture shows the values a block
  can use; those of posits go on beyond it. Of more than `TICKS` values the
  density is drawn: the darker, the more.

  Args:
    names: Formats of at most 16 bits.
    path: PNG to write; None for none.

  Returns:
    The matplotlib figure.
  """
  rows = [accuracy.summary(name) for name in names]
  ends = [f'{row.values} values, largest {row.max:.6g}' for row in rows]
  width = 8 + canvas.label_width(names) + canvas.label_width(ends)
  fig, axes = canvas.figure(width, canvas.ROW * 1.4 * len(names) + 0.9)
  ax = axes['all']
  lowest = 0.0
  for place, row in enumerate(rows):
    ax.axhline(place, color='0.85', lw=0.8, zorder=0)
    values = formats.get(row.name).values() / row.target
    values = values[np.abs(values) <= 1.03]
    lowest = min(lowest, values[0])
    _ticks(ax, place, values, f'C{place % 10}')
  ax.set_xlim(-1.04 if lowest < 0 else -0.04, 1.04)
  canvas.rows(ax, names)
  canvas.rows(ax.secondary_yaxis('right'), ends, flip=False)
  ax.set_xlabel(
    "value / the format's scale target (the absmax of a block is 1)"
  )
  return canvas.saved(fig, path)


def _ticks(ax, place: int, values: np.ndarray, color: str) -> None:
  """A tick for each value, or their density if there are too many."""
  if len(values) <= TICKS:
    width = 1.4 if len(values) <= 32 else 0.7
    ax.vlines(values, place - 0.36, place + 0.36, color=color, lw=width)
    return
  from matplotlib import colors

  counts, edges = np.histogram(values, SHADES, (values[0], values[-1]))
  ax.pcolormesh(
    edges,
    [place - 0.36, place + 0.36],
    np.log1p(counts)[None],
    cmap=colors.LinearSegmentedColormap.from_list('', ['white', color]),
    vmin=0,
  )


def accuracy_curves(
  names: Sequence[str], path: str | os.PathLike | None = None
):
  """Decimals that a format guarantees at each magnitude, from end to end.

  On the left as it is, on the right in units of the scale target, which is what
  a block sees. Up to `canvas.FEW` formats are curves, more are rows of colour.
  Formats with side data, or without two positive values, have no curve.

  Args, Returns: As `number_lines`.

  Raises:
    ValueError: If no format has a curve.
  """
  curves = {}
  for name in names:
    fmt = formats.get(name)
    if not isinstance(fmt, formats.SideFormat):
      edges, decimals = accuracy.guaranteed_decimals(fmt)
      if len(decimals):
        curves[name] = edges, decimals, accuracy.summary(fmt).target
  if not curves:
    raise ValueError(
      f'`names` {list(names)} has no format with two positive values and no '
      'side data. Add one, such as e2m1.'
    )
  panels = {'magnitude': False, 'magnitude / scale target': True}
  draw = _accuracy_lines if len(curves) <= canvas.FEW else _accuracy_rows
  return canvas.saved(draw(curves, panels), path)


def _limits(curves, scaled: bool) -> tuple[float, float]:
  """Ends of the axis of magnitudes."""
  unit = lambda target: target if scaled else 1.0
  low = min(edges[0] / unit(t) for edges, _, t in curves.values())
  high = max(edges[-1] / unit(t) for edges, _, t in curves.values())
  if scaled:  # Blocks of 32 normal numbers are empty far below their absmax.
    return max(low / 2, 1e-5), 1.5
  least, most = min(DECADES[0], high * 1e-6), max(DECADES[1], low * 1e6)
  return max(low / 2, least), min(high * 2, most)


def _accuracy_lines(curves, panels):
  width = 10 + canvas.label_width(curves)
  fig, axes = canvas.figure(width, 4.8, mosaic=[list(panels)], sharey=True)
  colors = canvas.colors(len(curves))
  for (label, scaled), ax in zip(panels.items(), axes.values()):
    lines = []
    for (edges, decimals, target), color in zip(curves.values(), colors):
      x = edges / (target if scaled else 1)
      # Outside of its values a format has no decimals at all.
      lines += ax.step(
        [x[0], *x, x[-1]],
        [0, *decimals, decimals[-1], 0],
        where='post',
        color=color,
        lw=1.3,
      )
    ax.set_xscale('log')
    ax.set_xlim(*_limits(curves, scaled))
    ax.set_ylim(bottom=min(0, *(d.min() for _, d, _ in curves.values())))
    ax.set_xlabel(label)
    ax.grid(alpha=0.25)
  next(iter(axes.values())).set_ylabel('correct decimals, guaranteed')
  fig.legend(lines, list(curves), loc='outside right upper', fontsize=8)
  return fig


def _accuracy_rows(curves, panels):
  width = 10 + canvas.label_width(curves)
  height = canvas.ROW * len(curves) + 1.2
  fig, axes = canvas.figure(width, height, mosaic=[list(panels)], sharey=True)
  top = max(d.max() for _, d, _ in curves.values())
  for (label, scaled), ax in zip(panels.items(), axes.values()):
    x = np.geomspace(*_limits(curves, scaled), SHADES)
    rows = [_sampled(x, *curve, scaled) for curve in curves.values()]
    mesh = ax.pcolormesh(
      x,
      np.arange(len(rows)),
      np.ma.masked_invalid(rows),
      vmin=0,
      vmax=top,
      cmap='viridis',
    )
    ax.set_xscale('log')
    ax.set_xlabel(label)
    canvas.rows(ax, list(curves))
    ax.set_yticks(np.arange(len(rows) - 1) + 0.5, minor=True)
    ax.grid(which='minor', axis='y', color='white', lw=1.5)
    ax.tick_params(which='minor', length=0)
  label = 'correct decimals, guaranteed'
  fig.colorbar(mesh, ax=list(axes.values()), label=label, aspect=60, pad=0.01)
  return fig


def _sampled(x, edges, decimals, target, scaled: bool) -> np.ndarray:
  """A curve at magnitudes `x`, NaN outside of the format's values."""
  edges = edges / (target if scaled else 1)
  place = np.searchsorted(edges, x, side='right') - 1
  inside = (place >= 0) & (place < len(decimals))
  return np.where(
    inside, decimals[np.clip(place, 0, len(decimals) - 1)], np.nan
  )
