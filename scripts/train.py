"""Trains a decoder from a config file; resumes from its last checkpoint.

python scripts/train.py --config=configs/pretrain/embedded.py --out=DIR
"""

import json
import pathlib

import numpy as np
import orbax.checkpoint as ocp
from absl import app, flags
from ml_collections import config_flags

from lowbit.data import embedded
from lowbit.experiment import train

_CONFIG = config_flags.DEFINE_config_file(
  'config', 'configs/pretrain/embedded.py', 'What to train.'
)
_OUT = flags.DEFINE_string('out', 'results/train', 'Folder for all output.')


def main(argv):
  """Trains, logs one JSON line an evaluation, and exports the weights."""
  del argv
  out = pathlib.Path(_OUT.value).absolute()
  config = _CONFIG.value
  with ocp.CheckpointManager(
    out / 'checkpoints', options=ocp.CheckpointManagerOptions(max_to_keep=2)
  ) as manager:

    def save(state):
      manager.save(int(state.step), args=ocp.args.StandardSave(state))

    def restore(state):
      step = manager.latest_step()
      if step is None:
        return state
      print(f'Goes on from step {step}.', flush=True)
      return manager.restore(step, args=ocp.args.StandardRestore(state))

    def log(row):
      line = json.dumps(row)
      with (out / 'curve.jsonl').open('a') as file:
        file.write(line + '\n')
      print(line, flush=True)

    state = train.run(config, save, restore, log)
  embedded.save(out / 'decoder.safetensors', state.params, dict(config.model))
  count = sum(np.size(p) for p in _leaves(state.params))
  print(f'{count} parameters in {out / "decoder.safetensors"}')


def _leaves(tree):
  import jax

  return jax.tree.leaves(tree)


if __name__ == '__main__':
  app.run(main)
