"""A language model with its text: the embedded one, or one of others."""

import dataclasses
import importlib.util
import pathlib

import jax
import numpy as np
from flax import linen as nn

from lowbit import transforms
from lowbit.data import embedded, text
from lowbit.interop import loading, mapped, token_bytes
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
  path = _path(config)
  if path.suffix == '.safetensors':
    sizes, params = embedded.load(str(path))
    params = jax.tree.map(jax.numpy.asarray, params)
    found = loading.Loaded(decoder.Decoder(sizes), params, None)
  else:
    found = loading.load(path)
    _check_language(found, path)
  calibration, test, ratio = windows(config, found)
  model, params = found.model, found.params
  if config.model.get('untie', False):
    params = transforms.untie(params)
    model = model.clone(config=dataclasses.replace(model.config, tied=False))
  return Language(model, params, calibration, test, ratio)


def open_model(config) -> mapped.Mapped:
  """The decoder of config.model, its params still on disk.

  Raises:
    ValueError: If there is none.
  """
  found = mapped.open_decoder(_path(config))
  return mapped.untied(found) if config.model.get('untie', False) else found


def _path(config) -> pathlib.Path:
  path = embedded.file_of(config.model.path)
  if not path.exists():
    raise ValueError(
      f'`config.model.path` {str(path)!r} is not there. '
      f'{config.get("hint", "Give a GGUF file, or a folder.")}'
    )
  return path


def _check_language(found: loading.Loaded, path: pathlib.Path) -> None:
  """Raises ValueError unless it predicts tokens."""
  if not isinstance(found.model, decoder.Decoder | gpt2.GPT2):
    raise ValueError(
      f'`config.model.path` {path} holds a model of the kind '
      f'{type(found.model).__name__}, which predicts no tokens. Give a decoder.'
    )


def windows(
  config, found: loading.Loaded | mapped.Mapped
) -> tuple[np.ndarray, np.ndarray, float]:
  """(calibration, test, tokens a byte) of `Language`.

  Without a tokenizer, tokens are bytes.

  Raises:
    ValueError: If the text is too short, or the model does not take bytes.
  """
  texts = text.load(config.data.path)
  lengths = {'calibration': config.calibration, 'test': config.windows}
  if found.tokenizer is None:
    _check_bytes(config, found.model.config.vocab)
    sample = lambda name, n: text.sample(texts, name, n, config.sequence)
  else:
    begin = _begin(found.tokenizer, config.model.get('begin', ''))
    sample = lambda name, n: token_windows(
      texts, name, n, config.sequence, found.tokenizer, begin
    )
  calibration, test = (sample(name, n) for name, n in lengths.items())
  if found.tokenizer is None:
    return calibration, test, 1.0
  predicted = test[:, 1:]
  size = token_bytes.count(found.tokenizer, predicted.ravel())
  return calibration, test, predicted.size / size


def _check_bytes(config, vocab: int) -> None:
  if vocab != 256:
    raise ValueError(
      f'`config.model.path` {str(config.model.path)!r} has no tokenizer, and a '
      f'vocabulary of {vocab}, so that its tokens are no bytes. Put its '
      'tokenizer.json beside config.json.'
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
