"""Quantizes a decoder part by part, from a mapped file: never whole in memory.

OUT holds `plan.json`, which says what is done; `parts/NAME`, an orbax
checkpoint of the packed params of each finished part; and `streams-N`, what
part N put out for the calibration and test windows, from where a killed run
goes on. All of them are written whole, or not at all.

Memory, beside the program itself: a part in float32 and what it takes to
quantize it (a Hessian and its factor for each input width with GPTQ), and the
streams, 4 bytes x windows x tokens x width each.
"""

import dataclasses
import functools
import math
import pathlib
import resource
import sys
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np

from lowbit import calibrate, operators, quantize
from lowbit.experiment import (
  evaluate,
  language,
  memory,
  ptq,
  results,
  stream_parts,
  stream_store,
)
from lowbit.models import decoder, decoder_parts

CHUNK = 512  # Tokens whose logits are held at once.
LN2 = math.log(2)


class Job:
  """A config of `scripts/stream.py`, checked; nothing is read yet."""

  def __init__(self, config, out: pathlib.Path):
    """Checks everything that can be checked before long work.

    Raises:
      ValueError: If the model, text, recipe or folder does not do.
    """
    self.config, self.out = config, results.check_writable(out)
    self.recipe = ptq.build(self.run, config.get('embedding', ''))
    found = language.open_model(config)
    self.model, self.plan = found.model, found.plan
    self.pieces = decoder_parts.cut(self.model.config)
    calibration, test, self.tokens_per_byte = language.windows(config, found)
    self.tokens = test
    if len(test) % config.batch:
      raise ValueError(
        f'`config.windows` {len(test)} must be a multiple of `config.batch` '
        f'{config.batch}.'
      )
    self.rules = stream_parts.match(self.model, self.recipe)
    self.store = stream_store.Store(self.out)
    self.store.begin(self._facts(calibration))
    self.streams = self.store.newest() or stream_store.Streams(
      0, {'calibration': calibration, 'float': test, 'test': test}
    )

  @property
  def run(self) -> dict:
    """Recipe, weight and activation of the config."""
    return {k: self.config[k] for k in ('recipe', 'weight', 'activation')}

  def _facts(self, calibration) -> dict:
    """What makes two runs the same: all that the parts depend on."""
    path = pathlib.Path(self.plan.checkpoint.path)
    kept = ('data', 'sequence', 'calibration', 'windows', 'embedding')
    everything = self.config.to_dict()
    return {
      'config': {k: everything.get(k, '') for k in kept} | self.run,
      'file': {'name': path.name, 'bytes': _size(path)},
      'tokens': stream_store.digest([calibration, self.tokens]),
      'model': dataclasses.asdict(self.model.config),
    }

  def parts(self, log: Callable[[str], None]) -> Iterator[str]:
    """Does what is left, part by part; yields the name of each that is done.

    Args:
      log: Called with a line before each part.
    """
    for i, piece in enumerate(self.pieces):
      if i >= self.streams.done:
        log(f'{piece.name} ({i + 1} of {len(self.pieces)})')
        self._quantize(i, piece)
      yield piece.name

  def _quantize(self, i: int, piece: decoder_parts.Piece) -> None:
    params = stream_parts.read(self.plan, piece)
    self.plan.checkpoint.release()
    recipe = stream_parts.local(self.recipe, self.rules, piece)
    batches = [self.streams.values['calibration']]
    prepared = calibrate.prepare(piece.module, params, recipe, batches)
    plain = dataclasses.replace(recipe, prepare=())
    found = calibrate.quantize_model(piece.module, prepared, plain, batches)
    self.store.write_part(piece.name, operators.pack(found))
    self._pass_on(i, piece, params, prepared, found)
    memory.release()

  def _pass_on(self, i, piece, params, prepared, found) -> None:
    """Sends the streams through a part, each by its own params."""
    served = operators.decode(found)
    before = self.streams.values
    if i == len(self.pieces) - 1:
      scores = self._score(piece.module, params, served)
      values = {k: np.asarray(v) for k, v in dataclasses.asdict(scores).items()}
    else:
      seen = served if self.recipe.sequential else prepared
      forward = lambda p, x: _forward(piece.module, p, x, self.config.batch)
      values = {
        'calibration': forward(seen, before['calibration']),
        'float': forward(params, before['float']),
        'test': forward(served, before['test']),
      }
    self.streams = stream_store.Streams(i + 1, values)
    self.store.write_streams(self.streams)

  def _score(self, module, params, served) -> 'Scores':
    """Of the last part, by chunks of tokens: logits are long."""
    last = lambda x: x[:, :-1].reshape(-1, x.shape[-1])
    a, b = (last(self.streams.values[k]) for k in ('float', 'test'))
    targets = self.tokens[:, 1:].reshape(-1)
    found = [
      _compare(module, (params, served), (a[i], b[i]), targets[i])
      for i in _chunks(len(targets))
    ]
    found = np.concatenate(found, axis=1)[:, : len(targets)].astype(np.float64)
    windows = found.reshape(3, len(self.tokens), -1)
    return Scores(*windows.mean(axis=-1))

  def largest_part(self) -> int:
    """Bytes of the largest part in float32."""
    return max(
      sum(4 * leaf.size for leaf in jax.tree.leaves(stream_parts.like(p, {})))
      for p in self.pieces
    )

  def row(self, seconds: float) -> dict:
    """The result of a run whose parts are all done, as in `ptq.Job.run`."""
    scores = Scores(**self.streams.values)
    per_byte = scores.bits_per_token * self.tokens_per_byte
    change = per_byte - scores.float_bits_per_token * self.tokens_per_byte
    tree = {p.name: stream_parts.like(p, self.rules) for p in self.pieces}
    return {
      **self.run,
      'recipe': self.recipe.name,
      'bits_per_weight': operators.base.bits_per_weight(tree),
      'megabytes': quantize.bits(tree) / 8 / ptq.MEGABYTE,
      'bits_per_byte': float(per_byte.mean()),
      'perplexity': float(2 ** scores.bits_per_token.mean()),
      'noise': evaluate.standard_error(per_byte),
      'delta': float(change.mean()),
      'stderr': evaluate.standard_error(change),
      'kl': float(scores.kl_nats.mean()),
      'seconds': seconds,
      'status': 'ok',
    }


@dataclasses.dataclass(frozen=True)
class Scores(evaluate.Scores):
  """Of the quantized model, beside the float one's."""

  float_bits_per_token: np.ndarray  # float64 [windows].


def peak_megabytes() -> float:
  """The most memory that this process has held at once."""
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  return peak / (1e6 if sys.platform == 'darwin' else 1e3)


def _size(path: pathlib.Path) -> int:
  if path.is_dir():
    return sum(p.stat().st_size for p in path.glob('*.safetensors'))
  return path.stat().st_size


def _forward(module, params, x, size: int) -> np.ndarray:
  """A stream through a part, `size` windows at once."""
  rows = [x[i : i + size] for i in range(0, len(x), size)]
  return np.concatenate([np.asarray(_apply(module, params, r)) for r in rows])


_apply = jax.jit(calibrate.apply, static_argnums=0)


def _chunks(count: int) -> list[np.ndarray]:
  """Indices 0 to count, in chunks of one length; the last repeats the end."""
  size = min(CHUNK, count)
  starts = range(0, count, size)
  return [np.minimum(np.arange(i, i + size), count - 1) for i in starts]


@functools.partial(jax.jit, static_argnums=0)
def _compare(module, params, x, targets) -> jax.Array:
  """(bits, KL in nats, bits of the float model) of each token: [3, tokens]."""
  log_p, log_q = (
    jax.nn.log_softmax(calibrate.apply(module, p, y)) for p, y in zip(params, x)
  )
  bits = lambda z: -jnp.take_along_axis(z, targets[:, None], -1)[:, 0] / LN2
  kl = jnp.sum(jnp.exp(log_p) * (log_p - log_q), axis=-1)
  return jnp.stack([bits(log_q), kl, bits(log_p)])


def load(out: str | pathlib.Path) -> tuple[decoder.Decoder, dict]:
  """The model of a finished run, and its packed params, for `lb.apply`.

  Args:
    out: The folder of the run.

  Raises:
    ValueError: If it is none, or not finished.
  """
  store = stream_store.Store(pathlib.Path(out))
  facts = store.facts()
  model = decoder.Decoder(decoder.DecoderConfig(**facts['model']))
  run = {k: facts['config'][k] for k in ('recipe', 'weight', 'activation')}
  rules = stream_parts.match(
    model, ptq.build(run, facts['config']['embedding'])
  )
  params = {}
  for piece in decoder_parts.cut(model.config):
    found = store.read_part(piece.name, stream_parts.like(piece, rules))
    params |= {whole: found[part] for whole, part in piece.names}
  return model, params
