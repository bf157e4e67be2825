"""Calibrates, quantizes and evaluates recipes on a model.

python scripts/ptq.py
python scripts/ptq.py --config.recipe=gptq --config.weight=int3@g64
python scripts/ptq.py --config=configs/ptq/smollm2.py
python scripts/ptq.py --config=configs/ptq/minilm.py
"""

import pathlib
import time

import rich.progress
from absl import app, flags, logging
from ml_collections import config_flags

from lowbit.experiment import ptq, report, sentence_ptq

_ROOT = pathlib.Path(__file__).resolve().parent.parent
_CONFIG = config_flags.DEFINE_config_file(
  'config', str(_ROOT / 'configs/ptq/default.py'), 'What to run.'
)
_OUT = flags.DEFINE_string(
  'out', 'results/ptq', 'Folder for results.jsonl and the picture.'
)


def main(argv):
  """Runs what is not finished yet, and shows all as a table and a picture."""
  if argv[1:]:
    raise app.UsageError(f'Unknown arguments {argv[1:]}.')
  logging.set_verbosity(logging.WARNING)  # JAX tells of absent backends.
  config, start = _CONFIG.value, time.monotonic()
  console = report.make_console()
  try:
    if config.get('picture', False):
      report.check_plots()
    kind = sentence_ptq.Job if 'sentences' in config else ptq.Job
    job = kind(config, pathlib.Path(_OUT.value))
  except (ValueError, TypeError, ImportError) as error:
    raise app.UsageError(str(error)) from error
  rows = []
  with rich.progress.Progress(console=console) as progress:
    task = progress.add_task('Starting', total=len(job.runs))
    show = lambda text: progress.update(task, description=text)
    for row in job.rows(show):
      rows.append(row)
      progress.advance(task)
      if not console.is_terminal:
        console.print(f'{row["recipe"]}: {row[job.headline]:.4f}')
  _report(console, rows, job, time.monotonic() - start)


def _report(console, rows, job, seconds):
  console.print(job.table(rows))
  console.print(f'{job.note(rows)} {seconds:.0f} s in all.')
  console.print(f'Rows: {job.out / "results.jsonl"}')
  if job.config.get('picture', False):
    report.plot_pareto(rows, job.out / 'pareto.png')
    console.print(f'Picture: {job.out / "pareto.png"}')


if __name__ == '__main__':
  app.run(main)
