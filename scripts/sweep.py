"""Trains a grid of decoders; killed at any instant, it goes on.

python scripts/sweep.py --config=configs/sweeps/smoke.py --out=DIR
"""

import pathlib
import warnings

import rich.live
from absl import app, flags, logging
from ml_collections import config_flags

from lowbit.experiment import report, sweep_loop, sweep_view

_ROOT = pathlib.Path(__file__).resolve().parent.parent
_CONFIG = config_flags.DEFINE_config_file(
  'config', str(_ROOT / 'configs/sweeps/smoke.py'), 'What to train.'
)
_OUT = flags.DEFINE_string(
  'out', 'results/sweep', 'Folder for results.jsonl and checkpoints.'
)


def main(argv):
  """Trains what is not finished yet, with a live table."""
  if argv[1:]:
    raise app.UsageError(f'Unknown arguments {argv[1:]}.')
  logging.set_verbosity(logging.WARNING)  # orbax tells of every file.
  console = report.make_console()
  warnings.showwarning = lambda message, *_: console.print(f'{message}')
  try:
    sweep = sweep_loop.Sweep(
      _CONFIG.value, pathlib.Path(_OUT.value), console.print
    )
  except (ValueError, TypeError) as error:
    raise app.UsageError(str(error)) from error
  console.print(f'{len(sweep.finished)} of {len(sweep.runs)} runs found.')
  view = sweep_view.View(sweep)
  with rich.live.Live(view, console=console, auto_refresh=False) as live:

    def show(status):
      live.refresh()
      if not console.is_terminal and status.state == 'finished':
        text = ' '.join(sweep_view.line(status))
        console.print(f'{text}; {view.left()}')

    rows = sweep.run(show)
  diverged = sum(row['status'] == 'diverged' for row in rows)
  console.print(f'{len(rows)} rows, {diverged} diverged: {sweep.file}')


if __name__ == '__main__':
  app.run(main)
