"""Trains a decoder from a config file; resumes from its last checkpoint.

python scripts/train.py --config=configs/pretrain/embedded.py --out=DIR
"""

import json
import pathlib

import jax
import orbax.checkpoint as ocp
import rich.progress
from absl import app, flags, logging
from ml_collections import config_flags

from lowbit.data import embedded
from lowbit.experiment import results, train

_ROOT = pathlib.Path(__file__).resolve().parent.parent
_CONFIG = config_flags.DEFINE_config_file(
  'config', str(_ROOT / 'configs/pretrain/embedded.py'), 'What to train.'
)
_OUT = flags.DEFINE_string('out', 'results/train', 'Folder for all output.')


def main(argv):
  """Trains, logs one JSON line an evaluation, and exports the weights."""
  if argv[1:]:
    raise app.UsageError(f'Unknown arguments {argv[1:]}.')
  logging.set_verbosity(logging.WARNING)  # orbax tells of every file.
  config = _CONFIG.value
  try:
    out = results.check_writable(pathlib.Path(_OUT.value)).absolute()
  except ValueError as error:
    raise app.UsageError(str(error)) from error
  options = ocp.CheckpointManagerOptions(max_to_keep=2)
  with (
    ocp.CheckpointManager(out / 'checkpoints', options=options) as manager,
    rich.progress.Progress() as bar,
  ):
    task = bar.add_task('Starting', total=config.steps)

    def save(state):
      manager.save(int(state.step), args=ocp.args.StandardSave(state))

    def restore(state):
      step = manager.latest_step()
      if step is None:
        return state
      bar.print(f'Goes on from step {step}.')
      return manager.restore(step, args=ocp.args.StandardRestore(state))

    def log(row):
      with (out / 'curve.jsonl').open('a') as file:
        file.write(json.dumps(row) + '\n')
      text = f'{row["bits_per_byte"]:.4f} bits/byte at step {row["step"]}'
      bar.update(task, description=text)
      if not bar.console.is_terminal:
        bar.print(text)

    progress = lambda step: bar.update(task, completed=step)
    state = train.run(config, save, restore, log, progress)
  embedded.save(out / 'decoder.safetensors', state.params, dict(config.model))
  count = sum(p.size for p in jax.tree.leaves(state.params))
  print(f'{count} parameters in {out / "decoder.safetensors"}')


if __name__ == '__main__':
  app.run(main)
