"""Sentence embeddings: an encoder of others, and sentences of shipped text."""

import contextlib
import dataclasses
import functools
import pathlib
import re
import tempfile
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from lowbit import calibrate, operators
from lowbit.data import text
from lowbit.interop import hf_encoders, hugging_face
from lowbit.models import encoder

LIMIT = 2**31  # Bytes; an archive with more is not unpacked.
# Sentences of the model card of all-MiniLM-L6-v2.
EXAMPLES = (
  'The weather is lovely today.',
  "It's so sunny outside!",
  'He drove to the stadium.',
)


@dataclasses.dataclass(frozen=True)
class Sentences:
  """An encoder, its float params, and batches of sentences (tokens, mask)."""

  model: nn.Module
  params: dict
  calibration: list[tuple[np.ndarray, np.ndarray]]
  test: list[tuple[np.ndarray, np.ndarray]]
  examples: tuple[np.ndarray, np.ndarray]


def load(config) -> Sentences:
  """What a config such as configs/ptq/minilm.py names.

  Raises:
    ValueError: If the model is missing or of another kind, or the text short.
  """
  with _folder(pathlib.Path(config.model.path), config.hint) as path:
    found = hugging_face.read(path)
    model, params = hf_encoders.load(found)
    params = jax.tree.map(jnp.array, params)  # The files may go away.
    tokenizer = hugging_face.read_tokenizer(path, model.config.vocab)
  encode = functools.partial(tokens_of, tokenizer, length=config.sequence)
  texts = text.load(config.data.path)

  def batches(name: str, count: int):
    tokens, mask = encode(cut(texts, name, count))
    starts = range(0, count, config.batch)
    take = lambda i: slice(i, i + config.batch)
    return [(tokens[take(i)], mask[take(i)]) for i in starts]

  return Sentences(
    model,
    params,
    batches('calibration', config.calibration),
    batches('test', config.sentences),
    encode(EXAMPLES),
  )


@contextlib.contextmanager
def _folder(path: pathlib.Path, hint: str):
  """A model's folder; of an archive, for as long as it is read."""
  if path.is_dir():
    yield path
    return
  if not zipfile.is_zipfile(path):
    raise ValueError(
      f'`config.model.path` {str(path)!r} is no folder or zip archive. {hint}'
    )
  with tempfile.TemporaryDirectory() as root, zipfile.ZipFile(path) as archive:
    size = sum(member.file_size for member in archive.infolist())
    if size > LIMIT:
      raise ValueError(f'`config.model.path` {path} unpacks to {size} bytes.')
    archive.extractall(root)
    configs = sorted(
      pathlib.Path(root).rglob('config.json'), key=lambda p: len(p.parts)
    )
    if not configs:
      raise ValueError(f'`config.model.path` {path} holds no config.json.')
    yield configs[0].parent


def cut(texts: tuple[np.ndarray, ...], name: str, count: int) -> list[str]:
  """Sentences of 20 to 200 characters, evenly spread over a split of texts.

  Raises:
    ValueError: If there are fewer than `count` distinct ones.
  """
  decode = lambda piece: piece.tobytes().decode(errors='ignore')
  parts = (
    re.split(r'(?<=[.!?])\s+', decode(piece))
    for whole in texts
    for piece in text.split(whole, name)
  )
  lines = [' '.join(part.split()) for piece in parts for part in piece]
  fits = [line for line in dict.fromkeys(lines) if 20 <= len(line) <= 200]
  if not 1 <= count <= len(fits):
    raise ValueError(
      f'The {name} split holds {len(fits)} sentences of 20 to 200 characters, '
      f'and {count} were asked for.'
    )
  picks = np.linspace(0, len(fits) - 1, count).astype(int)
  return [fits[i] for i in picks]


def tokens_of(tokenizer, lines, length: int) -> tuple[np.ndarray, np.ndarray]:
  """Sentences as int32 and bool [lines, length], cut and padded."""
  tokenizer.enable_truncation(length)
  tokenizer.enable_padding(length=length)
  found = tokenizer.encode_batch(list(lines))
  tokens = np.asarray([line.ids for line in found], np.int32)
  return tokens, np.asarray([line.attention_mask for line in found], bool)


@functools.partial(jax.jit, static_argnums=0)
def _embed(model, params, tokens, mask) -> jax.Array:
  states = calibrate.apply(model, params, tokens, mask)
  return encoder.mean_pool(states, mask)


def embed(model: nn.Module, params, batches) -> np.ndarray:
  """Unit vectors [sentences, width] of batches (tokens, mask).

  Args:
    model: The encoder.
    params: Its params, float or with operators, which are decoded once.
    batches: Of equal length.
  """
  params = operators.decode(params)
  return np.concatenate([_embed(model, params, *b) for b in batches])


def similarities(vectors: np.ndarray) -> np.ndarray:
  """Cosines of all pairs of unit vectors, each pair once."""
  return (vectors @ vectors.T)[np.triu_indices(len(vectors), 1)]
