"""Looks at a model layer by layer: outliers, and what formats would do.

python scripts/inspect_model.py [MODEL] --out=DIR

MODEL is a .safetensors, .npy or .gguf file; without one, the embedded decoder.
Of models that lowbit can run (the embedded one, GGUF), the inputs of layers are
looked at on shipped text as well. (A script named inspect.py would shadow
Python's own module `inspect` for every script beside it.)
"""

import pathlib

import jax
import ml_collections
import rich.console
from absl import app, flags

from lowbit.data import files
from lowbit.experiment import inspection, language, report, results

_SPECS = flags.DEFINE_list('specs', list(inspection.SPECS), 'Formats to try.')
_LAYERS = flags.DEFINE_string('layers', '', 'Only paths that hold this text.')
_WINDOWS = flags.DEFINE_integer('windows', 2, 'Windows of text for inputs; 0.')
_OUT = flags.DEFINE_string('out', 'results/inspect', 'Folder for all output.')


def main(argv):
  """Prints a table; writes inspect.jsonl and inspect.png."""
  if len(argv) > 2:
    raise app.UsageError(f'One model at a time, got {argv[1:]}.')
  path = argv[1] if len(argv) == 2 else ''
  console = rich.console.Console()
  try:
    out = results.check_writable(pathlib.Path(_OUT.value))
    report.check_plots('install matplotlib')
    with console.status('Reading'):
      weights, inputs = _read(path)
    if _LAYERS.value:
      weights = {k: w for k, w in _flat(weights).items() if _LAYERS.value in k}
    with console.status('Quantizing'):
      found = inspection.inspect(weights, _SPECS.value, None, inputs)
  except ValueError as error:
    raise app.UsageError(str(error)) from error
  console.print(found.table())
  source = path or 'embedded'
  lines = [{'model': source, **line} for line in found.lines()]
  results.append_new(out / 'inspect.jsonl', lines)
  found.draw(out / 'inspect.png')
  console.print(f'{out}/inspect.jsonl, inspect.png')


def _read(path: str):
  """(weights, outliers of inputs) of a model."""
  if path and pathlib.Path(path).suffix != '.gguf':
    return files.weights(path), {}
  config = ml_collections.ConfigDict(
    dict(
      model=dict(path=path, begin=''),
      data=dict(path=''),
      sequence=256,
      calibration=max(_WINDOWS.value, 1),
      windows=1,
    )
  )
  found = language.load(config)
  inputs = {}
  if _WINDOWS.value:
    inputs = inspection.layer_inputs(
      found.model, found.params, found.calibration
    )
  return found.params, inputs


def _flat(weights) -> dict:
  leaves = jax.tree_util.tree_leaves_with_path(weights)
  keystr = jax.tree_util.keystr
  return {keystr(p, simple=True, separator='/'): x for p, x in leaves}


if __name__ == '__main__':
  app.run(main)
