"""Compiles the train step of a config for a TPU slice that is not here.

python scripts/compile_step.py --config=configs/pretrain/1b.py \
    --topology=v5e:16x16 --model_axis=4

Prints bytes a chip, flops, and whether it fits; needs the extra `aot`.
"""

import json
import os
import pathlib
import time

os.environ.setdefault('TPU_SKIP_MDS_QUERY', '1')  # Before libtpu is loaded.

from absl import app, flags
from ml_collections import config_flags

from lowbit.experiment import pod_step

_ROOT = pathlib.Path(__file__).resolve().parent.parent
_CONFIG = config_flags.DEFINE_config_file(
  'config', str(_ROOT / 'configs/pretrain/1b.py'), 'What to train.'
)
_TOPOLOGY = flags.DEFINE_string('topology', 'v5e:16x16', 'Slice of a TPU.')
_MODEL_AXIS = flags.DEFINE_integer('model_axis', 4, 'Chips of the model axis.')


def main(argv):
  """Prints one JSON line."""
  if argv[1:]:
    raise app.UsageError(f'Unknown arguments {argv[1:]}.')
  config, begun = _CONFIG.value, time.monotonic()
  try:
    row = pod_step.row(config, _TOPOLOGY.value, _MODEL_AXIS.value)
  except ValueError as error:
    raise app.UsageError(str(error)) from error
  names = ('kind', 'weight', 'activation', 'gradient')
  recipe = ' '.join(str(config.recipe[n]) for n in names if config.recipe[n])
  row = {'recipe': recipe or config.model.dtype, **row}
  row['compile_s'] = round(time.monotonic() - begun, 1)
  print(json.dumps(row))


if __name__ == '__main__':
  app.run(main)
