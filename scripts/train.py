"""Trains a decoder from a config file; resumes from its last checkpoint.

On one CPU or GPU:

  python scripts/train.py --config=configs/pretrain/embedded.py --out=DIR

On a TPU slice, the same on every host with --processes=-1; on machines that do
not find each other, with --coordinator=HOST:PORT --processes=N --process=I. The
mesh is config.mesh. SIGTERM saves a checkpoint and ends the run.
"""

import json
import pathlib
import signal

import jax
import rich.progress
from absl import app, flags, logging
from jax.experimental import multihost_utils
from ml_collections import config_flags

from lowbit.data import embedded
from lowbit.experiment import checkpoint, results, train
from lowbit.experiment import mesh as mesh_lib

_ROOT = pathlib.Path(__file__).resolve().parent.parent
_CONFIG = config_flags.DEFINE_config_file(
  'config', str(_ROOT / 'configs/pretrain/embedded.py'), 'What to train.'
)
_OUT = flags.DEFINE_string('out', 'results/train', 'Folder for all output.')
_COORDINATOR = flags.DEFINE_string('coordinator', '', 'Host:port of process 0.')
_PROCESSES = flags.DEFINE_integer(
  'processes', 0, 'Processes of the run; -1 where JAX finds out.'
)
_PROCESS = flags.DEFINE_integer('process', -1, 'Index of this process.')


def watch(manager):
  """Step -> whether this process was told to end."""
  told = []
  if jax.process_count() > 1:
    return manager.reached_preemption
  signal.signal(signal.SIGTERM, lambda *_: told.append(True))
  return lambda step: bool(told)


def main(argv):
  """Trains, logs one JSON line an evaluation, and exports the weights."""
  if argv[1:]:
    raise app.UsageError(f'Unknown arguments {argv[1:]}.')
  logging.set_verbosity(logging.WARNING)  # orbax tells of every file.
  config = _CONFIG.value
  try:
    mesh_lib.connect(_COORDINATOR.value, _PROCESSES.value, _PROCESS.value)
    mesh = None
    if jax.device_count() > 1 or 'mesh' in config:
      mesh = mesh_lib.make(**config.get('mesh', {}))
    out = results.check_writable(pathlib.Path(_OUT.value)).absolute()
  except ValueError as error:
    raise app.UsageError(str(error)) from error
  with (
    checkpoint.manager_of(out / 'checkpoints') as manager,
    rich.progress.Progress(disable=jax.process_index() > 0) as bar,
  ):
    task = bar.add_task('Starting', total=config.steps)

    save = lambda state: checkpoint.save_step(manager, int(state.step), state)

    def restore(state):
      found = checkpoint.restore_newest(manager, state)
      if found is None:
        return state
      bar.print(f'Goes on from step {int(found.step)}.')
      return found

    def log(row):
      if jax.process_index():
        return
      with (out / 'curve.jsonl').open('a') as file:
        file.write(json.dumps(row) + '\n')
      text = f'{row["bits_per_byte"]:.4f} bits/byte at step {row["step"]}'
      bar.update(task, description=text)
      if not bar.console.is_terminal:
        bar.print(text)

    progress = lambda step: bar.update(task, completed=step)
    stop = watch(manager)
    try:
      state = train.run(config, save, restore, log, progress, mesh, stop)
    except ValueError as error:  # Of the config, or of an older checkpoint.
      raise app.UsageError(f'{error} (--out={out})') from error
  if int(state.step) < config.steps:
    print(f'Stopped at step {int(state.step)}; the same command goes on.')
    return
  if mesh is not None:
    gathered = multihost_utils.process_allgather(state.params, tiled=True)
    state = state._replace(params=gathered)
  if jax.process_index():
    return
  embedded.save(out / 'decoder.safetensors', state.params, dict(config.model))
  count = sum(p.size for p in jax.tree.leaves(state.params))
  print(f'{count} parameters in {out / "decoder.safetensors"}')


if __name__ == '__main__':
  app.run(main)
