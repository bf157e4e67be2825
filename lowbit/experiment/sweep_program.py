"""The compiled part of a sweep: runs side by side that differ in numbers.

`Program` is static, `Member` is data with one leading axis of runs, and so is
the state. A segment of steps is one call, whose number of steps is data too.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lowbit.experiment import train
from lowbit.intercept import linen, traced
from lowbit.models import decoder, loss


@dataclasses.dataclass(frozen=True)
class Program:
  """All that is static."""

  model: decoder.DecoderConfig
  layout: traced.Layout
  warmup: int  # Steps.
  decay: float  # Last fraction of the steps, in which the rate falls to 0.
  weight_decay: float


class Member(NamedTuple):
  """The numbers of one run; stacked, of several."""

  seed: jax.Array  # uint32.
  learning_rate: jax.Array  # float32, the peak.
  steps: jax.Array  # int32, in all.
  formats: dict[str, traced.Format]


def stack(members: Sequence[Member]) -> Member:
  """One `Member` whose leaves have a leading axis."""
  return jax.tree.map(lambda *leaves: np.stack(leaves), *members)


def rate(program: Program, member: Member, step: jax.Array) -> jax.Array:
  """Learning rate of a step: warm-up, constant, then linear to zero."""
  step, steps = step.astype(jnp.float32), member.steps.astype(jnp.float32)
  up = (step + 1) / max(program.warmup, 1)
  down = (steps - step) / jnp.maximum(program.decay * steps, 1.0)
  return member.learning_rate * jnp.clip(jnp.minimum(up, down), 0.0, 1.0)


def _optimizer(program, member) -> optax.GradientTransformation:
  matrices = lambda params: jax.tree.map(lambda p: p.ndim > 1, params)
  return optax.chain(
    optax.clip_by_global_norm(1.0),
    optax.scale_by_adam(b1=0.9, b2=0.95),
    optax.add_decayed_weights(program.weight_decay, mask=matrices),
    optax.scale_by_schedule(lambda step: -rate(program, member, step)),
  )


@functools.partial(jax.jit, static_argnums=0)
def init(program: Program, members: Member) -> train.TrainState:
  """The states before the first step, from each member's seed."""

  def one(member):
    model = decoder.Decoder(program.model)
    tokens = jnp.zeros((1, 8), jnp.int32)
    params = model.init(jax.random.key(member.seed), tokens)['params']
    opt_state = _optimizer(program, member).init(params)
    return train.TrainState(jnp.int32(0), params, opt_state)

  return jax.vmap(one)(members)


def _nats(program, member, params, tokens):
  """Nats of each next byte: tokens [B, T] -> [B, T - 1]."""
  handler = traced.handler(program.layout, member.formats)
  with linen.handling(handler):
    logits = decoder.Decoder(program.model).apply({'params': params}, tokens)
  return loss.next_token_nats(logits, tokens)


@functools.partial(jax.jit, static_argnums=0, donate_argnums=2)
def advance(
  program: Program,
  members: Member,
  states: train.TrainState,
  tokens: jax.Array,
  count: jax.Array,
) -> tuple[train.TrainState, jax.Array]:
  """Trains all members for `count` steps.

  Args:
    program: What is static.
    members: M runs.
    states: Of the M runs.
    tokens: int32 [M, K, batch, time]; the first `count` <= K are used, so that
      a shorter last segment needs no program of its own.
    count: int32 [].

  Returns:
    (states, nats of the last batches before their update, float32 [M]).
  """

  def step(member, state, batch):
    loss_fn = lambda params: jnp.mean(_nats(program, member, params, batch))
    nats, grads = jax.value_and_grad(loss_fn)(state.params)
    tx = _optimizer(program, member)
    updates, opt_state = tx.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    return train.TrainState(state.step + 1, params, opt_state), nats

  def body(i, carry):
    batch = jax.lax.dynamic_index_in_dim(tokens, i, 1, keepdims=False)
    return jax.vmap(step)(members, carry[0], batch)

  nats = jnp.zeros(tokens.shape[0], jnp.float32)
  return jax.lax.fori_loop(0, count, body, (states, nats))


@functools.partial(jax.jit, static_argnums=0)
def _window_nats(program, members, params, tokens):
  one = lambda member, params: jnp.mean(
    _nats(program, member, params, tokens), axis=-1
  )
  return jax.vmap(one)(members, params)


def evaluate(
  program: Program, members: Member, params: dict, rows: np.ndarray, batch: int
) -> np.ndarray:
  """Nats a byte of each member on each window of `rows` [n, T].

  Returns:
    float64 [members, n], in the members' own formats.
  """
  parts = [
    _window_nats(program, members, params, rows[i : i + batch])
    for i in range(0, len(rows), batch)
  ]
  return np.concatenate([np.asarray(p, np.float64) for p in parts], axis=1)


def sizes(params: dict) -> tuple[int, int]:
  """(parameters without embedding and head, all parameters) of one member."""
  count = lambda tree: sum(int(np.prod(p.shape)) for p in jax.tree.leaves(tree))
  body = {k: v for k, v in params.items() if k not in ('embed', 'head')}
  return count(body), count(params)
