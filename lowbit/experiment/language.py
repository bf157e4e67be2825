"""A language model with its text: the embedded one, or a file of others."""

import dataclasses
import importlib.util
import pathlib

import jax
import numpy as np
from flax import linen as nn

from lowbit import transforms
from lowbit.data import embedded, text
from lowbit.interop import gguf_decoders, gguf_file, gguf_tokenizer
from lowbit.models import decoder


@dataclasses.dataclass(frozen=True)
class Language:
  """A model, float params, and windows of text as its tokens."""

  model: nn.Module
  params: dict
  calibration: np.ndarray  # int32 [windows, time].
  test: np.ndarray  # int32 [windows, time]; the first token is not predicted.
  tokens_per_byte: float  # Of the predicted tokens of `test`; 1 for bytes.


def load(config) -> Language:
  """What a config of `scripts/ptq.py` names.

  Raises:
    ValueError: If a file is missing or of another kind, or the text too short.
  """
  if pathlib.Path(config.model.path).suffix == '.gguf':
    return _of_gguf(config)
  sizes, params = embedded.load(config.model.path)
  texts = text.load(config.data.path)
  sample = lambda name, count: text.sample(texts, name, count, config.sequence)
  return Language(
    decoder.Decoder(sizes),
    jax.tree.map(jax.numpy.asarray, params),
    sample('calibration', config.calibration),
    sample('test', config.windows),
    1.0,
  )


def _of_gguf(config) -> Language:
  path = pathlib.Path(config.model.path)
  if not path.is_file():
    raise ValueError(
      f'`config.model.path` {str(path)!r} is not a file. '
      f'{config.get("hint", "Give a GGUF file.")}'
    )
  file = gguf_file.GgufFile(path)
  tokenizer = gguf_tokenizer.build(file)
  texts = text.load(config.data.path)
  begin = _begin(tokenizer, config.model.get('begin', ''))
  sample = lambda name, count: token_windows(
    texts, name, count, config.sequence, tokenizer, begin
  )
  calibration = sample('calibration', config.calibration)
  test = sample('test', config.windows)
  model, params = gguf_decoders.load(file)
  if config.model.get('untie', False):
    params = transforms.untie(params)
    model = decoder.Decoder(dataclasses.replace(model.config, tied=False))
  ratio = _tokens_per_byte(test[:, 1:], tokenizer)
  return Language(model, params, calibration, test, ratio)


def _begin(tokenizer, token: str) -> tuple[int, ...]:
  """The ids that each window starts with."""
  if not token:
    return ()
  found = tokenizer.token_to_id(token)
  if found is None:
    raise ValueError(
      f"`config.model.begin` {token!r} is no token of the model. Use '' for "
      'windows that start with text.'
    )
  return (found,)


def token_windows(
  texts: tuple[np.ndarray, ...],
  name: str,
  count: int,
  length: int,
  tokenizer,
  begin: tuple[int, ...] = (),
) -> np.ndarray:
  """Windows of one split of texts as tokens, as `text.sample` picks them.

  Args:
    texts: From `text.load`.
    name: The split.
    count: Number of windows.
    length: Tokens a window, `begin` included.
    tokenizer: A `tokenizers.Tokenizer`.
    begin: Ids that stand before each window.

  Returns:
    int32 [count, length].

  Raises:
    ValueError: If the split holds fewer windows.
  """
  # A cut through a character leaves a few bytes that are none.
  decode = lambda piece: piece.tobytes().decode(errors='ignore')
  pieces = [
    np.asarray(tokenizer.encode(decode(piece), add_special_tokens=False).ids)
    for whole in texts
    for piece in text.split(whole, name)
  ]
  rows = text.windows(pieces, length - len(begin))
  rows = text.spread(rows, name, count)
  front = np.tile(np.asarray(begin, np.int32), (len(rows), 1))
  return np.concatenate([front, rows], axis=1)


def _tokens_per_byte(tokens: np.ndarray, tokenizer) -> float:
  """Of byte-level tokens, which are written with one letter a byte."""
  size = sum(len(tokenizer.id_to_token(int(t))) for t in tokens.ravel())
  return tokens.size / size


def installed(package: str, file: str) -> str:
  """Where a file of an installed package lies; its name if there is none.

  Args:
    package: Its import name; it is not imported.
    file: Path inside of it.
  """
  spec = importlib.util.find_spec(package)
  folders = spec.submodule_search_locations if spec else None
  return str(pathlib.Path(folders[0]) / file) if folders else file
