"""Looks at a model layer by layer: outliers, and what formats would do.

python scripts/inspect_model.py [MODEL] --out=DIR

MODEL is a .gguf file, a folder of Hugging Face, or a .safetensors or .npy file
of weights alone; without one, the embedded decoder. Where there is a tokenizer,
the inputs of layers are looked at on shipped text as well. (A script named
inspect.py would shadow Python's own module `inspect` for every script beside
it.)
"""

import pathlib

import rich.console
from absl import app, flags

from lowbit.experiment import inspected, inspection, report, results

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
      weights, inputs = inspected.read(path, _WINDOWS.value)
    if _LAYERS.value:
      weights = inspected.having(weights, _LAYERS.value)
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


if __name__ == '__main__':
  app.run(main)
