"""What a sweep looks like while it runs: a table, and the time that is left."""

import time
from collections.abc import Sequence

import numpy as np
from rich import progress_bar
from rich import table as rich_table

from lowbit.experiment import report, sweep_loop


class View:
  """Draws the statuses of a sweep; its clock starts when it is made."""

  def __init__(self, sweep: sweep_loop.Sweep):
    self.sweep = sweep
    self.begun = time.monotonic()
    self.before: float | None = None  # Share done, resumed work included.

  def __rich__(self) -> rich_table.Table:
    """One line a group, and the time left in the title."""
    statuses = self.sweep.statuses
    total, done = len(self.sweep.runs), len(self.sweep.finished)
    out = report.empty_table(
      'model',
      'tokens',
      'runs',
      'step',
      'nats',
      title=f'{done} of {total} runs finished; {self.left()}',
    )
    out.add_column('', min_width=20)
    for status in statuses:
      out.add_row(*line(status), bar(status))
    return out

  def left(self) -> str:
    """Time that is left, from the work that was done since the start."""
    statuses = self.sweep.statuses
    whole = sum(s.work for s in statuses)
    done = sum(s.work * s.done / s.steps for s in statuses)
    if self.before is None or done < self.before:
      self.before = done
    fresh = done - self.before
    if whole == done:
      return 'nothing is left'
    if not fresh:
      return 'time left unknown'
    seconds = (whole - done) / fresh * (time.monotonic() - self.begun)
    minutes, seconds = divmod(round(seconds), 60)
    return f'{minutes // 60}:{minutes % 60:02d}:{seconds:02d} left'


def line(status: sweep_loop.Status) -> Sequence[str]:
  """model, tokens, runs, step, loss."""
  finite = [] if status.nats is None else status.nats
  finite = [n for n in finite if np.isfinite(n)]
  return (
    status.group.model,
    str(status.group.tokens),
    str(len(status.hashes)),
    f'{status.done}/{status.steps}',
    f'{min(finite):.3f} {max(finite):.3f}' if len(finite) else '-',
  )


def bar(status: sweep_loop.Status) -> progress_bar.ProgressBar:
  """How far a group is."""
  return progress_bar.ProgressBar(status.steps, status.done, width=20)
