"""Folders of Hugging Face: config.json, safetensors, tokenizer.json."""

import dataclasses
import os
import pathlib

from lowbit.interop import safetensors_file


@dataclasses.dataclass(frozen=True)
class Folder:
  """A model's folder."""

  path: pathlib.Path
  config: dict  # config.json.
  checkpoint: safetensors_file.SafetensorsFolder

  @property
  def kind(self) -> str:
    """The model type, such as 'llama'."""
    return str(self.config.get('model_type', ''))

  @property
  def shapes(self):
    """Shape of each tensor."""
    return self.checkpoint.shapes

  def number(self, key: str, default: float | None = None, of=None):
    """A number of config.json.

    Args:
      key: Its name.
      default: What an absent or null one is; a float allows fractions.
      of: Another object than the whole of config.json.

    Raises:
      ValueError: If it is absent without a default, or no number of at least 0.
    """
    value = (self.config if of is None else of).get(key)
    value = default if value is None else value
    kinds = int | float if isinstance(default, float) else int
    fits = isinstance(value, kinds) and not isinstance(value, bool)
    if not fits or not 0 <= value < 2**40:  # NaN is in no range.
      raise ValueError(
        f'{key} in config.json of `path` {self.path} must be a number of at '
        f'least 0, got {value!r}.'
      )
    return value

  def layers(self, key: str = 'num_hidden_layers') -> int:
    """Number of layers, at most that of the tensors; else ValueError."""
    count = self.number(key)
    if not 0 < count <= len(self.shapes):
      raise ValueError(
        f'`path` {self.path} claims {count} layers and has {len(self.shapes)} '
        'tensors.'
      )
    return count

  def expect(self, key: str, *allowed, default=None) -> None:
    """Raises ValueError unless a field is one of these."""
    value = self.config.get(key, default)
    if value not in allowed:
      raise ValueError(
        f'{key} {value!r} in config.json of `path` {self.path} is not '
        f'supported; {", ".join(map(repr, allowed))} is.'
      )


def read(path: str | os.PathLike) -> Folder:
  """Reads config.json, and maps the weights.

  Raises:
    ValueError: As `SafetensorsFolder` and `read_json` do.
  """
  path = pathlib.Path(path)
  config = safetensors_file.read_json(path / 'config.json')
  return Folder(path, config, safetensors_file.SafetensorsFolder(path))


def read_tokenizer(path: str | os.PathLike, vocab: int):
  """The `tokenizers.Tokenizer` of a folder's tokenizer.json.

  Raises:
    ValueError: If it is missing, unreadable, or has ids of `vocab` and more.
    ImportError: Without the package `tokenizers`.
  """
  from lowbit.interop import gguf_vocabulary

  tokenizers = gguf_vocabulary.check_package()
  file = pathlib.Path(path) / 'tokenizer.json'
  safetensors_file.read_json(file)
  try:
    found = tokenizers.Tokenizer.from_file(str(file))
  except Exception as error:  # The package raises no other class.
    raise ValueError(f'`path` {file} is no tokenizer: {error}.') from error
  gguf_vocabulary.check_size(found, vocab, file)
  return found
