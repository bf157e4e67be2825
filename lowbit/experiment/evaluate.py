"""Bits per token of a language model, against its float self, with the noise.

The tokens of the embedded model are bytes.
"""

import dataclasses
import functools
import math
from collections.abc import Iterable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from lowbit import calibrate, operators
from lowbit.experiment import spill

LN2 = math.log(2)
MEMORY = 2**28  # Bytes of float answers that are kept; more go to disk.


@dataclasses.dataclass(frozen=True)
class Scores:
  """One number for each window of text."""

  bits_per_token: np.ndarray  # float64 [windows].
  kl_nats: np.ndarray  # float64 [windows], KL(float || model) a token.


@dataclasses.dataclass(frozen=True)
class Reference:
  """The float model's answer to each batch."""

  batches: tuple[np.ndarray, ...]  # int32 [batch, time] each.
  log_p: Sequence  # float32 [batch, time - 1, vocab] each.


@functools.partial(jax.jit, static_argnums=0)
def _log_p(model, params, tokens) -> jax.Array:
  logits = calibrate.apply(model, params, tokens)
  return jax.nn.log_softmax(logits[:, :-1].astype(jnp.float32))


@functools.partial(jax.jit, static_argnums=0)
def _score(model, params, tokens, log_p) -> tuple[jax.Array, jax.Array]:
  """Bits per token and KL of each window."""
  log_q = _log_p(model, params, tokens)
  nats = -jnp.take_along_axis(log_q, tokens[:, 1:, None], axis=-1)
  kl = jnp.sum(jnp.exp(log_p) * (log_p - log_q), axis=-1)
  return jnp.mean(nats, axis=(1, 2)) / LN2, jnp.mean(kl, axis=-1)


def reference(model: nn.Module, params, batches: Iterable) -> Reference:
  """Runs the float model once over all batches.

  A vocabulary of tens of thousands makes answers of gigabytes: those lie in a
  temporary file.
  """
  batches = tuple(np.asarray(b) for b in batches)
  answers = (_log_p(model, params, b) for b in batches)
  if not batches:
    return Reference((), ())
  shape = jax.eval_shape(_log_p, model, params, batches[0]).shape
  size = 4 * math.prod(shape) * len(batches)
  keep = tuple if size <= MEMORY else spill.Spilled
  return Reference(batches, keep(answers))


def score(model: nn.Module, params, ref: Reference) -> Scores:
  """Serves `params` (float, or with operators) over the reference's batches.

  Codes are decoded once, not for each batch; so all recipes of weights alone
  share one compiled program.

  Returns:
    `Scores`, one entry a window, in the order of the batches.
  """
  params = operators.decode(params)
  # To NumPy one by one: else the answers of many batches wait in memory.
  parts = [
    np.asarray(_score(model, params, b, p), np.float64)
    for b, p in zip(ref.batches, ref.log_p)
  ]
  return Scores(*np.concatenate(parts, axis=1))


def standard_error(values: np.ndarray, shards: int = 8) -> float:
  """Standard error of the mean, from the means of equal contiguous shards.

  Args:
    values: [windows], at least two shards of them.
    shards: Number of evaluation shards.
  """
  shards = min(shards, len(values))
  if shards < 2:
    return float('nan')
  means = [part.mean() for part in np.array_split(values, shards)]
  return float(np.std(means, ddof=1) / math.sqrt(shards))
