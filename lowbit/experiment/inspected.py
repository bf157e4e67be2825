"""What `scripts/inspect_model.py` looks at: weights, and inputs of layers."""

import pathlib

import jax
import ml_collections

from lowbit.analysis import outliers
from lowbit.data import files, text
from lowbit.experiment import inspection, language
from lowbit.interop import loading

LENGTH = 256  # Tokens a window, if the model has so many positions.


def read(path: str, windows: int) -> tuple[dict, dict[str, outliers.Outliers]]:
  """The weights of a model, and outliers of what its layers see.

  Args:
    path: A .gguf file or a folder of Hugging Face; a .safetensors or .npy file
      of weights alone; '' for the embedded decoder.
    windows: Windows of shipped text that are run; 0 for none.

  Returns:
    Params or name -> array; and outliers by weight path, none if there is no
    text to run: of weights alone, of images, or without a tokenizer.

  Raises:
    ValueError: If the file or folder is damaged, or of another kind.
  """
  place = pathlib.Path(path)
  if not path:
    return _embedded(windows)
  if place.suffix != '.gguf' and not place.is_dir():
    return files.weights(path), {}
  found = loading.load(path)
  if found.tokenizer is None or not windows:
    return found.params, {}
  length = min(LENGTH, getattr(found.model.config, 'positions', LENGTH))
  tokens = language.token_windows(
    text.load(), 'calibration', windows, length, found.tokenizer
  )
  inputs = inspection.layer_inputs(found.model, found.params, tokens)
  return found.params, inputs


def _embedded(windows: int):
  config = ml_collections.ConfigDict(
    dict(
      model=dict(path=''),
      data=dict(path=''),
      sequence=LENGTH,
      calibration=max(windows, 1),
      windows=1,
    )
  )
  found = language.load(config)
  if not windows:
    return found.params, {}
  return found.params, inspection.layer_inputs(
    found.model, found.params, found.calibration
  )


def having(weights: dict, part: str) -> dict:
  """Path -> leaf, of the paths that hold a text."""
  leaves = jax.tree_util.tree_leaves_with_path(weights)
  named = {
    jax.tree_util.keystr(p, simple=True, separator='/'): x for p, x in leaves
  }
  return {name: x for name, x in named.items() if part in name}
