"""Results as a table and as a picture."""

import math
import os
from collections.abc import Sequence

from rich import box, console
from rich import table as rich_table

COLUMNS = (
  'recipe',
  'bits/\nweight',
  'MB',
  'bits/\nbyte',
  'change',
  'KL\n(nats)',
  'seconds',
)


def make_console() -> console.Console:
  """The terminal; 100 columns at least where the output is no terminal."""
  found = console.Console()
  if found.is_terminal:
    return found
  return console.Console(width=max(found.width, 100))


def empty_table(first: str, *numbers: str, title: str = ''):
  """A table of named rows: names fold, numbers do not.

  Without frames, wide numbers leave 16 of 80 columns for the name.
  """
  out = rich_table.Table(
    title=title or None,
    box=box.SIMPLE_HEAD,
    pad_edge=False,
    collapse_padding=True,
  )
  out.add_column(first, overflow='fold', min_width=12)
  for name in numbers:
    out.add_column(name, justify='right', no_wrap=True)
  return out


def table(rows: Sequence[dict], title: str = '') -> rich_table.Table:
  """One line a row: recipe, bits per weight, megabytes, bits per byte, ...

  The change against float comes with its standard error over shards of text;
  the Pareto front of bits and loss is marked by a star. Rows of a model whose
  tokens are no bytes tell its perplexity, too.
  """
  front = {id(row) for row in pareto(rows)}
  tokens = any('perplexity' in row for row in rows)
  extra = ('perplexity',) if tokens else ()
  out = empty_table(*COLUMNS[:4], *extra, *COLUMNS[4:], title=title)
  for row in rows:
    star = ' *' if id(row) in front else ''
    out.add_row(
      f'{row["recipe"]}{star}',
      _number(row, 'bits_per_weight', '.3f'),
      _number(row, 'megabytes', '.2f'),
      _number(row, 'bits_per_byte', '.4f'),
      *(_number(row, key, '.2f') for key in extra),
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


def check_plots(off: str = 'pass --config.picture=False') -> None:
  """Raises ImportError if matplotlib is missing; `off` is a way out."""
  try:
    import matplotlib  # noqa: F401
  except ImportError as error:
    raise ImportError(
      "Pictures need matplotlib. Install the extra: pip install '.[viz]', or "
      f'{off}.'
    ) from error


def plot_pareto(
  rows: Sequence[dict], path: str | os.PathLike, title: str = ''
) -> None:
  """Draws bits per weight against the change in bits per byte.

  Args:
    rows: Result rows; those without a `delta` are left out.
    path: PNG to write.
    title: Of the picture.
  """
  check_plots()
  from matplotlib import figure
  from matplotlib.backends import backend_agg

  usable = [r for r in rows if r.get('delta') is not None]
  fig = figure.Figure(figsize=(10, 6.2), layout='constrained')
  backend_agg.FigureCanvasAgg(fig)
  ax = fig.add_subplot()
  front = pareto(usable)
  ax.step(
    [r['bits_per_weight'] for r in front],
    [r['delta'] for r in front],
    where='post',
    color='tab:green',
    alpha=0.5,
    label='Pareto front',
    zorder=1,
  )
  for key, (marker, color, label) in KINDS.items():
    chosen = [r for r in usable if bool(r.get('activation')) == key]
    if chosen:
      _points(ax, chosen, marker, color, label)
  _axes(ax, usable)
  ax.set_title(title or 'What each format costs')
  ax.legend(loc='upper right')
  _label(ax, usable)
  fig.savefig(path, dpi=120)


# Whether activations are quantized -> how a row is drawn.
KINDS = {
  False: ('o', 'tab:blue', 'weights only'),
  True: ('s', 'tab:orange', 'weights and activations'),
}
LINEAR = 1e-3  # Changes below are drawn on a linear axis, above on a log one.


def _points(ax, rows, marker: str, color: str, label: str) -> None:
  ax.errorbar(
    [r['bits_per_weight'] for r in rows],
    [r['delta'] for r in rows],
    yerr=[r.get('stderr') or 0 for r in rows],
    fmt=marker,
    color=color,
    label=label,
    ms=6,
    capsize=2,
    lw=1,
  )


def _axes(ax, rows) -> None:
  ax.set_xscale('log', base=2)
  least = 0.8 * min(r['bits_per_weight'] for r in rows)
  ticks = [t for t in (1, 2, 3, 4, 5, 6, 8, 16, 32) if t >= least]
  ax.set_xticks(ticks, [str(t) for t in ticks])
  ax.set_yscale('symlog', linthresh=LINEAR)
  ax.yaxis.set_major_formatter('{x:g}')
  ends = [(r['delta'], r.get('stderr') or 0) for r in rows]
  low = min(min(d - e for d, e in ends) * 1.5, -LINEAR / 4)
  ax.set_ylim(low, 2 * max(LINEAR, *(d + e for d, e in ends)))
  ax.set_xlabel('bits per weight at rest, scales and side data included')
  ax.set_ylabel('change in bits per byte against float32 (lower is better)')
  ax.grid(alpha=0.25)


def _label(ax, rows) -> None:
  """Writes names beside the points, moved apart."""
  import adjustText

  place = lambda r: (r['bits_per_weight'], r['delta'])
  texts = [ax.text(*place(r), r['recipe'], fontsize=8) for r in rows]
  adjustText.adjust_text(
    texts,
    *zip(*map(place, rows)),
    ax=ax,
    expand=(1.1, 1.5),
    arrowprops={'arrowstyle': '-', 'lw': 0.5, 'alpha': 0.6},
  )
