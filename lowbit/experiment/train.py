"""Pretraining a decoder: loss, schedule, step, and a loop that resumes.

The data of a step, and so the whole run, is a pure function of the config: a
run that was killed and restored from its last checkpoint ends bit for bit where
the uninterrupted run ends.
"""

import functools
import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lowbit.data import embedded, text
from lowbit.models import decoder, loss

LN2 = float(np.log(2))


class TrainState(NamedTuple):
  """All that a run needs to go on."""

  step: jax.Array  # int32 [], steps done.
  params: dict
  opt_state: optax.OptState


def schedule(
  peak: float, warmup: int, steps: int, decay_steps: int
) -> optax.Schedule:
  """Warm-up, then constant, then linear to zero over the last `decay_steps`.

  The constant phase does not depend on `steps`, so that the end of a run can be
  chosen while it runs (warmup-stable-decay; Hu et al., MiniCPM, 2024).
  """
  if warmup + decay_steps > steps:
    raise ValueError(
      f'`warmup` {warmup} + `decay_steps` {decay_steps} exceed `steps` '
      f'{steps}. Shorten one of them.'
    )
  return optax.join_schedules(
    [
      optax.linear_schedule(0.0, peak, warmup),
      optax.constant_schedule(peak),
      optax.linear_schedule(peak, 0.0, max(decay_steps, 1)),
    ],
    [warmup, steps - decay_steps],
  )


def optimizer(config) -> optax.GradientTransformation:
  """AdamW with clipped gradients; weight decay on matrices only."""
  rate = schedule(
    config.learning_rate, config.warmup, config.steps, config.decay_steps
  )
  matrices = lambda params: jax.tree.map(lambda p: p.ndim > 1, params)
  return optax.chain(
    optax.clip_by_global_norm(1.0),
    optax.adamw(
      rate, b1=0.9, b2=0.95, weight_decay=config.weight_decay, mask=matrices
    ),
  )


def init(config, model: decoder.Decoder) -> TrainState:
  """The state before the first step, from config.seed or config.start.

  Raises:
    ValueError: If config.start is no weights file of a decoder of these sizes.
  """
  if config.start:
    sizes, params = embedded.load(config.start)
    if sizes != model.config:
      raise ValueError(
        f'`start` {config.start} holds a decoder of {sizes}, but `model` asks '
        f'for {model.config}. Change one of them.'
      )
    params = jax.tree.map(jnp.asarray, params)
  else:
    tokens = jnp.zeros((1, 8), jnp.int32)
    params = model.init(jax.random.key(config.seed), tokens)['params']
  return TrainState(jnp.int32(0), params, optimizer(config).init(params))


def make_step(config, model: decoder.Decoder) -> Callable:
  """Returns the jitted (state, tokens [B, T]) -> (state, metrics)."""
  tx = optimizer(config)

  def loss_fn(params, tokens):
    logits = model.apply({'params': params}, tokens)
    return jnp.mean(loss.next_token_nats(logits, tokens))

  @functools.partial(jax.jit, donate_argnums=0)
  def step(state, tokens):
    nats, grads = jax.value_and_grad(loss_fn)(state.params, tokens)
    updates, opt_state = tx.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    metrics = {'loss_nats': nats, 'gradient_norm': optax.tree.norm(grads)}
    return TrainState(state.step + 1, params, opt_state), metrics

  return step


@functools.partial(jax.jit, static_argnums=0)
def window_bits(model, params, tokens) -> jax.Array:
  """Bits per byte of each window: tokens [B, T] -> float32 [B]."""
  logits = model.apply({'params': params}, tokens)
  return jnp.mean(loss.next_token_nats(logits, tokens), axis=-1) / LN2


def evaluate(model, params, rows: np.ndarray, batch: int = 16) -> np.ndarray:
  """Bits per byte of each window of `rows` [n, T] -> float64 [n]."""
  parts = [
    window_bits(model, params, rows[i : i + batch])
    for i in range(0, len(rows), batch)
  ]
  return np.concatenate([np.asarray(p, np.float64) for p in parts])


def run(
  config,
  save: Callable[[TrainState], None],
  restore: Callable[[TrainState], TrainState],
  log: Callable[[dict], None],
  progress: Callable[[int], None] = lambda step: None,
) -> TrainState:
  """Trains to config.steps.

  Args:
    config: `configs/pretrain/embedded.py` names the fields.
    save: Called every config.checkpoint_every steps, and at the end.
    restore: Maps the initial state to the newest saved one, or to itself.
    log: Called with a row (step, bytes, bits per byte, ...) every
      config.evaluate_every steps.
    progress: Called with the number of steps done, after each.

  Returns:
    The last state.
  """
  model = decoder.Decoder(decoder.DecoderConfig(**config.model))
  texts = text.load(config.data.path)
  held_out = text.sample(texts, 'calibration', 32, config.sequence)
  if config.data.extra:
    texts = texts + text.load(config.data.extra)
  pieces = [piece for t in texts for piece in text.split(t, 'train')]
  state = restore(init(config, model))
  step_fn = make_step(config, model)
  start, begun = int(state.step), time.monotonic()
  for done in range(start + 1, config.steps + 1):
    tokens = text.training_batch(
      pieces, done - 1, config.batch, config.sequence, config.seed
    )
    state, metrics = step_fn(state, tokens)
    progress(done)
    last = done == config.steps
    if done % config.evaluate_every == 0 or last:
      speed = (done - start) / (time.monotonic() - begun)
      log(_row(config, model, state, metrics, held_out, speed))
    if done % config.checkpoint_every == 0 or last:
      save(state)
  return state


def _row(config, model, state, metrics, held_out, speed) -> dict:
  step = int(state.step)
  return {
    'step': step,
    'bytes': step * config.batch * config.sequence,
    'train_bits_per_byte': float(metrics['loss_nats']) / LN2,
    'bits_per_byte': float(evaluate(model, state.params, held_out).mean()),
    'gradient_norm': float(metrics['gradient_norm']),
    'steps_per_second': speed,
  }
