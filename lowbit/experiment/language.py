"""A language model with its text: the embedded one, or a model of others."""

import dataclasses
import importlib.util
import pathlib

import jax
import numpy as np
from flax import linen as nn

from lowbit import transforms
from lowbit.data import embedded, text
from lowbit.interop import loading, token_bytes
from lowbit.models import decoder, gpt2


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
  path = pathlib.Path(config.model.path)
  if path.suffix == '.gguf' or is_folder(path):
    return _of_others(config)
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


def is_folder(path: pathlib.Path) -> bool:
  """Whether it is a folder of Hugging Face."""
  return (path / 'config.json').is_file()


def _of_others(config) -> Language:
  path = pathlib.Path(config.model.path)
  if not path.exists():
    raise ValueError(
      f'`config.model.path` {str(path)!r} is not a file. '
      f'{config.get("hint", "Give a GGUF file.")}'
    )
  found = loading.load(path)
  _check_language(found, path)
  texts = text.load(config.data.path)
  begin = _begin(found.tokenizer, config.model.get('begin', ''))
  sample = lambda name, count: token_windows(
    texts, name, count, config.sequence, found.tokenizer, begin
  )
  calibration = sample('calibration', config.calibration)
  test = sample('test', config.windows)
  model, params = found.model, found.params
  if config.model.get('untie', False):
    params = transforms.untie(params)
    sizes = dataclasses.replace(model.config, tied=False)
    model = model.clone(config=sizes)
  predicted = test[:, 1:]
  size = token_bytes.count(found.tokenizer, predicted.ravel())
  return Language(model, params, calibration, test, predicted.size / size)


def _check_language(found: loading.Loaded, path: pathlib.Path) -> None:
  """Raises ValueError unless it predicts tokens, and there is a tokenizer."""
  if not isinstance(found.model, decoder.Decoder | gpt2.GPT2):
    raise ValueError(
      f'`config.model.path` {path} holds a model of the kind '
      f'{type(found.model).__name__}, which predicts no tokens. Give a decoder.'
    )
  if found.tokenizer is None:
    raise ValueError(
      f'`config.model.path` {path} has no tokenizer.json. Put that of the '
      'model there.'
    )


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


def installed(package: str, file: str) -> str:
  """Where a file of an installed package lies; its name if there is none.

  Args:
    package: Its import name; it is not imported.
    file: Path inside of it.
  """
  spec = importlib.util.find_spec(package)
  folders = spec.submodule_search_locations if spec else None
  return str(pathlib.Path(folders[0]) / file) if folders else file
