"""The vocabulary of a GGUF file's tokenizer, checked against itself."""

import dataclasses
import os
from collections.abc import Mapping

import numpy as np

from lowbit.interop import gguf_file

# Kinds of tokens in GGUF.
NORMAL, UNKNOWN, CONTROL, DEFINED, UNUSED, BYTE = range(1, 7)


@dataclasses.dataclass(frozen=True)
class Vocabulary:
  """Tokens as the file has them, each with its kind."""

  path: os.PathLike
  fields: Mapping[str, object]  # All metadata of the file.
  tokens: list[str]
  kinds: np.ndarray  # int [tokens].

  def strings(self, key: str) -> list[str]:
    """A list of strings; else ValueError."""
    return _strings(self.path, self.fields, key)

  def flag(self, key: str, default: bool) -> bool:
    """A boolean; else ValueError."""
    found = self.fields.get(key, default)
    if not isinstance(found, bool):
      raise ValueError(f'{key} of `path` {self.path} is no boolean: {found!r}.')
    return found

  def token(self, keys: tuple[str, ...], default: int | None) -> str | None:
    """The token whose id the first field present of these gives.

    Args:
      keys: Names of fields.
      default: The id if there is none; None for no token.

    Raises:
      ValueError: If the id is none of a token.
    """
    found = [self.fields[key] for key in keys if key in self.fields]
    index = found[0] if found else default
    if index is None:
      return None
    fits = isinstance(index, int) and not isinstance(index, bool)
    if not fits or not 0 <= index < len(self.tokens):
      raise ValueError(
        f'`path` {self.path} has {len(self.tokens)} tokens, and '
        f'{" or ".join(keys)} is {index!r}.'
      )
    return self.tokens[index]


def read(file: gguf_file.GgufFile) -> Vocabulary:
  """The tokens of a file and their kinds.

  Raises:
    ValueError: If there are none, two are equal, or kinds do not fit them.
  """
  tokens = _strings(file.path, file.fields, 'tokenizer.ggml.tokens')
  if len(set(tokens)) != len(tokens):
    raise ValueError(f'`path` {file.path} has two equal tokens.')
  kinds = file.fields.get('tokenizer.ggml.token_type')
  kinds = np.full(len(tokens), NORMAL) if kinds is None else np.asarray(kinds)
  if kinds.shape != (len(tokens),):
    raise ValueError(
      f'`path` {file.path} has {len(tokens)} tokens and kinds of the shape '
      f'{kinds.shape}.'
    )
  return Vocabulary(file.path, file.fields, tokens, kinds)


def _strings(path, fields, key: str) -> list[str]:
  found = fields.get(key)
  if not isinstance(found, list):
    raise ValueError(f'`path` {path} has no list of strings {key}.')
  return found


def check_package():
  """The package `tokenizers`; ImportError, with the way out, without it."""
  try:
    import tokenizers
    import tokenizers.decoders
    import tokenizers.models
    import tokenizers.normalizers
    import tokenizers.pre_tokenizers
    import tokenizers.processors
  except ImportError as error:
    raise ImportError(
      "Tokenizers need the package tokenizers: pip install 'lowbit[interop]'."
    ) from error
  return tokenizers


def check_size(tokenizer, vocab: int, path) -> None:
  """Raises ValueError if the tokenizer has ids that the model has not."""
  size = tokenizer.get_vocab_size()
  largest = max(tokenizer.get_vocab().values(), default=-1)
  if largest >= vocab:
    raise ValueError(
      f'The tokenizer of `path` {path} does not fit the model: it has {size} '
      f'tokens, the last of id {largest}, and the embedding {vocab} rows.'
    )
