"""Quantizes a decoder block by block, never whole in memory; resumes.

python scripts/stream.py
python scripts/stream.py --config=configs/stream/smollm2.py --out=DIR
python scripts/stream.py --config.model.path=FOLDER --out=DIR

A run that was killed goes on from its last finished part: start it again.
"""

import pathlib
import time

import rich.progress
from absl import app, flags, logging
from ml_collections import config_flags

from lowbit.experiment import report, results, streaming

_ROOT = pathlib.Path(__file__).resolve().parent.parent
_CONFIG = config_flags.DEFINE_config_file(
  'config', str(_ROOT / 'configs/stream/default.py'), 'What to run.'
)
_OUT = flags.DEFINE_string(
  'out', 'results/stream', 'Folder for the packed parts and the result.'
)


def main(argv):
  """Does the parts that are not done yet, and shows the result as a table."""
  if argv[1:]:
    raise app.UsageError(f'Unknown arguments {argv[1:]}.')
  logging.set_verbosity(logging.WARNING)  # JAX tells of absent backends.
  console, start = report.make_console(), time.monotonic()
  try:
    job = streaming.Job(_CONFIG.value, pathlib.Path(_OUT.value))
  except (ValueError, TypeError, ImportError) as error:
    raise app.UsageError(str(error)) from error
  console.print(
    f'{job.streams.done} of {len(job.pieces)} parts found in {job.out}'
  )
  with rich.progress.Progress(console=console) as progress:
    task = progress.add_task('Starting', total=len(job.pieces))
    show = lambda text: progress.update(task, description=text)
    for name in job.parts(show):
      progress.advance(task)
      if not console.is_terminal:
        console.print(f'{name} is done')
  row = job.row(time.monotonic() - start)
  results.append_new(job.out / results.FILE, [row])
  _report(console, row, job)


def _report(console, row, job):
  windows, length = job.tokens.shape
  console.print(
    report.table([row], f'{windows} windows of {length} tokens, held out')
  )
  console.print(
    f'Packed params: streaming.load({str(job.out)!r}). Peak memory of this '
    f'process: {streaming.peak_megabytes():.0f} MB; largest part in float32: '
    f'{job.largest_part() / 1e6:.0f} MB.'
  )


if __name__ == '__main__':
  app.run(main)
