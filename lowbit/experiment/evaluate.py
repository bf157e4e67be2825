"""Bits per byte of a language model, against its float self, with the noise."""

import dataclasses
import functools
import math
from collections.abc import Iterable

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from lowbit import calibrate, operators

LN2 = math.log(2)


@dataclasses.dataclass(frozen=True)
class Scores:
  """One number for each window of text."""

  bits_per_byte: np.ndarray  # float64 [windows].
  kl_nats: np.ndarray  # float64 [windows], KL(float || model) a byte.


@dataclasses.dataclass(frozen=True)
class Reference:
  """The float model's answer to each batch."""

  batches: tuple[np.ndarray, ...]  # int32 [batch, time] each.
  log_p: tuple[jax.Array, ...]  # float32 [batch, time - 1, vocab] each.


@functools.partial(jax.jit, static_argnums=0)
def _log_p(model, params, tokens) -> jax.Array:
  logits = calibrate.apply(model, params, tokens)
  return jax.nn.log_softmax(logits[:, :-1].astype(jnp.float32))


@functools.partial(jax.jit, static_argnums=0)
def _score(model, params, tokens, log_p) -> tuple[jax.Array, jax.Array]:
  """Bits per byte and KL of each window."""
  log_q = _log_p(model, params, tokens)
  nats = -jnp.take_along_axis(log_q, tokens[:, 1:, None], axis=-1)
  kl = jnp.sum(jnp.exp(log_p) * (log_p - log_q), axis=-1)
  return jnp.mean(nats, axis=(1, 2)) / LN2, jnp.mean(kl, axis=-1)


def reference(model: nn.Module, params, batches: Iterable) -> Reference:
  """Runs the float model once over all batches."""
  batches = tuple(np.asarray(b) for b in batches)
  return Reference(batches, tuple(_log_p(model, params, b) for b in batches))


def score(model: nn.Module, params, ref: Reference) -> Scores:
  """Serves `params` (float, or with operators) over the reference's batches.

  Codes are decoded once, not for each batch; so all recipes of weights alone
  share one compiled program.

  Returns:
    `Scores`, one entry a window, in the order of the batches.
  """
  params = operators.decode(params)
  parts = [_score(model, params, b, p) for b, p in zip(ref.batches, ref.log_p)]
  bits, kl = (
    np.concatenate([np.asarray(p[i], np.float64) for p in parts])
    for i in range(2)
  )
  return Scores(bits, kl)


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
