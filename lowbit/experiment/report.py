"""Results as a table and as a picture."""

import math
import os
from collections.abc import Sequence

from rich import table as rich_table

COLUMNS = (
  'recipe',
  'bits/weight',
  'MB',
  'bits/byte',
  'change',
  'KL (nats)',
  'seconds',
)


def table(rows: Sequence[dict], title: str = '') -> rich_table.Table:
  """One line a row: recipe, bits per weight, megabytes, bits per byte, ...

  The change against float comes with its standard error over shards of text;
  the Pareto front of bits and loss is marked by a star.
  """
  front = {id(row) for row in pareto(rows)}
  out = rich_table.Table(title=title or None)
  for i, name in enumerate(COLUMNS):
    out.add_column(name, justify='left' if i == 0 else 'right', no_wrap=True)
  for row in rows:
    star = ' *' if id(row) in front else ''
    out.add_row(
      f'{row["recipe"]}{star}',
      _number(row, 'bits_per_weight', '.3f'),
      _number(row, 'megabytes', '.2f'),
      _number(row, 'bits_per_byte', '.4f'),
      _change(row),
      _number(row, 'kl', '.5f'),
      _number(row, 'seconds', '.1f'),
    )
  return out


def _number(row, key: str, form: str) -> str:
  value = row.get(key)
  return row.get('status', '-') if value is None else format(value, form)


def _change(row) -> str:
  if row.get('delta') is None:
    return '-'
  return f'{row["delta"]:+.4f} ± {row.get("stderr") or 0:.4f}'


def pareto(rows: Sequence[dict]) -> list[dict]:
  """The rows that no other beats in both bits and loss, by rising bits."""
  usable = [r for r in rows if r.get('bits_per_byte') is not None]
  ordered = sorted(
    usable, key=lambda r: (r['bits_per_weight'], r['bits_per_byte'])
  )
  front, best = [], math.inf
  for row in ordered:
    if row['bits_per_byte'] < best:
      front.append(row)
      best = row['bits_per_byte']
  return front


def check_plots() -> None:
  """Raises ImportError, with the way out, if matplotlib is missing."""
  try:
    import matplotlib  # noqa: F401
  except ImportError as error:
    raise ImportError(
      "Pictures need matplotlib. Install the extra: pip install '.[viz]', or "
      'pass --config.picture=False.'
    ) from error


def plot_pareto(
  rows: Sequence[dict], path: str | os.PathLike, title: str = ''
) -> None:
  """Draws bits per weight against bits per byte, and the Pareto front.

  Args:
    rows: Result rows; those without a loss are left out.
    path: PNG to write.
    title: Of the picture.
  """
  check_plots()
  from matplotlib import figure
  from matplotlib.backends import backend_agg

  usable = [r for r in rows if r.get('bits_per_byte') is not None]
  fig = figure.Figure(figsize=(10, 6.2), layout='constrained')
  backend_agg.FigureCanvasAgg(fig)
  ax = fig.add_subplot()
  front = pareto(usable)
  ax.step(
    [r['bits_per_weight'] for r in front],
    [r['bits_per_byte'] for r in front],
    where='post',
    color='tab:green',
    alpha=0.6,
    label='Pareto front',
    zorder=1,
  )
  for row in usable:
    weights_only = not row.get('activation')
    ax.errorbar(
      row['bits_per_weight'],
      row['bits_per_byte'],
      yerr=row.get('stderr') or 0,
      fmt='o' if weights_only else 's',
      ms=6,
      capsize=2,
      color='tab:green'
      if row in front
      else 'tab:blue'
      if weights_only
      else 'tab:orange',
    )
  ax.set_xscale('log', base=2)
  ticks = [
    t
    for t in (1, 2, 3, 4, 5, 6, 8, 16, 32)
    if 0.8 * min(r['bits_per_weight'] for r in usable) <= t
  ]
  ax.set_xticks(ticks, [str(t) for t in ticks])
  ax.set_ylim(*_limits(usable))
  ax.set_yscale('log')
  ax.yaxis.set_major_formatter('{x:.2f}')
  ax.yaxis.set_minor_formatter('{x:.2f}')
  ax.set_xlabel('bits per weight at rest, scales and side data included')
  ax.set_ylabel('bits per byte on held-out text (lower is better)')
  ax.set_title(title or 'What each format costs')
  ax.grid(alpha=0.25, which='both')
  handles = [
    ax.plot([], [], marker, color=color)[0]
    for marker, color in (('o', 'tab:blue'), ('s', 'tab:orange'))
  ]
  lines, names = ax.get_legend_handles_labels()
  ax.legend(
    lines + handles,
    [*names, 'weights only', 'weights and activations'],
    loc='upper right',
  )
  fig.draw_without_rendering()
  _label(ax, usable)
  fig.savefig(path, dpi=120)


def _limits(rows) -> tuple[float, float]:
  low = min(r['bits_per_byte'] for r in rows)
  high = max(r['bits_per_byte'] for r in rows)
  span = max(high / low, 1.01)
  return low / span**0.08, high * span**0.08


def _label(ax, rows) -> None:
  """Writes names beside the points, each where it covers nothing yet."""
  taken = [
    ax.transData.transform((r['bits_per_weight'], r['bits_per_byte']))
    for r in rows
  ]
  boxes = [(x - 6, y - 6, x + 6, y + 6) for x, y in taken]
  frame = ax.get_window_extent()
  order = sorted(range(len(rows)), key=lambda i: -taken[i][1])
  for i in order:
    x, y = taken[i]
    width, height = 5.6 * len(rows[i]['recipe']), 13
    spots = [
      (dx, dy)
      for r in range(8, 260, 9)
      for dx, dy in (
        (r, 0),
        (r, r),
        (r, -r),
        (-r - width, 0),
        (-r - width, r),
        (-r - width, -r),
        (-width / 2, r),
        (-width / 2, -r - height),
      )
    ]
    free = [
      s
      for s in spots
      if _fits(
        (x + s[0], y + s[1] - 4, x + s[0] + width, y + s[1] + height - 4),
        boxes,
        frame,
      )
    ]
    dx, dy = free[0] if free else spots[0]
    boxes.append((x + dx, y + dy - 4, x + dx + width, y + dy + height - 4))
    far = max(abs(dx), abs(dy)) > 30 and dx != -8 - width
    ax.annotate(
      rows[i]['recipe'],
      (rows[i]['bits_per_weight'], rows[i]['bits_per_byte']),
      xytext=(dx, dy),
      textcoords='offset pixels',
      fontsize=7.5,
      arrowprops={'arrowstyle': '-', 'lw': 0.4, 'alpha': 0.6} if far else None,
    )


def _fits(box, boxes, frame) -> bool:
  inside = (
    box[0] >= frame.x0
    and box[2] <= frame.x1
    and box[1] >= frame.y0
    and box[3] <= frame.y1
  )
  return inside and not any(
    box[0] < b[2] and b[0] < box[2] and box[1] < b[3] and b[1] < box[3]
    for b in boxes
  )
