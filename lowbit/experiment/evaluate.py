"""Bits per byte of a language model, against its float self, with the noise."""

import dataclasses
import math
from collections.abc import Iterable

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from lowbit import calibrate
from lowbit.models import loss

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


def reference(model: nn.Module, params, batches: Iterable) -> Reference:
  """Runs the float model once over all batches."""
  batches = tuple(np.asarray(b) for b in batches)

  @jax.jit
  def run(params, tokens):
    logits = calibrate.apply(model, params, tokens)
    return jax.nn.log_softmax(logits[:, :-1].astype(jnp.float32))

  return Reference(batches, tuple(run(params, b) for b in batches))


def score(model: nn.Module, params, ref: Reference) -> Scores:
  """Serves `params` (float, or with operators) over the reference's batches.

  Returns:
    `Scores`, one entry a window, in the order of the batches.
  """

  @jax.jit
  def run(params, tokens, log_p):
    logits = calibrate.apply(model, params, tokens)
    nats = loss.next_token_nats(logits, tokens)
    log_q = jax.nn.log_softmax(logits[:, :-1].astype(jnp.float32))
    kl = jnp.sum(jnp.exp(log_p) * (log_p - log_q), axis=-1)
    return jnp.mean(nats, axis=-1) / LN2, jnp.mean(kl, axis=-1)

  parts = [run(params, b, p) for b, p in zip(ref.batches, ref.log_p)]
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
