"""Pretraining a decoder: loss, schedule, step, and a loop that resumes.

The same loop runs on one device, and over a mesh of the devices of many
processes (`mesh.py`), in float or under a recipe of `recipes.training`. The
data of a step, and so the whole run, is a pure function of the config: a run
that was killed and restored from its last checkpoint ends bit for bit where the
uninterrupted run ends.
"""

import functools
import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lowbit import calibrate, optim, recipes
from lowbit.data import embedded, text
from lowbit.experiment import mesh as mesh_lib
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


# Moments that lie on a mesh as their parameters do.
SPREAD = optim.Moments(
  optim.Rows('dynamic8@g32'), optim.Rows('udynamic8@g32'), keep=('embedding',)
)
OPTIMIZERS = {
  'adamw': optax.adamw,
  'adamw8bit': functools.partial(optim.adamw8bit, moments=SPREAD),
}


def optimizer(config) -> optax.GradientTransformation:
  """AdamW with clipped gradients; weight decay on matrices only.

  Raises:
    ValueError: If config.optimizer is unknown.
  """
  name = config.get('optimizer', 'adamw')
  if name not in OPTIMIZERS:
    raise ValueError(
      f'`optimizer` must be one of {sorted(OPTIMIZERS)}, got {name!r}.'
    )
  rate = schedule(
    config.learning_rate, config.warmup, config.steps, config.decay_steps
  )
  matrices = lambda params: jax.tree.map(lambda p: p.ndim > 1, params)
  return optax.chain(
    optax.clip_by_global_norm(1.0),
    OPTIMIZERS[name](
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


def init_sharded(config, model: decoder.Decoder, mesh) -> TrainState:
  """`init` from config.seed, every leaf made where it lies."""
  if config.start:
    state = init(config, model)
    return jax.device_put(state, mesh_lib.state_shardings(state, mesh))
  make = functools.partial(init, config, model)
  where = mesh_lib.state_shardings(jax.eval_shape(make), mesh)
  return jax.jit(make, out_shardings=where)()


def recipe(config):
  """The recipe of config.recipe, or None for float.

  Raises:
    ValueError: If its kind is unknown.
  """
  how = dict(config.get('recipe') or {})
  kind = how.pop('kind', '')
  if not kind:
    return None
  kinds = {'pretraining': recipes.pretraining, 'qat': recipes.qat}
  if kind not in kinds:
    raise ValueError(
      f'`recipe.kind` must be one of {sorted(kinds)} or empty, got {kind!r}.'
    )
  return kinds[kind](**{name: spec for name, spec in how.items() if spec})


def make_step(config, model: decoder.Decoder, mesh=None) -> Callable:
  """Returns the jitted (state, tokens [B, T]) -> (state, metrics).

  Args:
    config: `configs/pretrain/embedded.py` names the fields.
    model: The decoder.
    mesh: Over which state and tokens are spread; None for one device.
  """
  tx, how = optimizer(config), recipe(config)

  def loss_fn(params, tokens, rngs):
    with mesh_lib.spread(mesh):
      if how is None:
        logits = model.apply({'params': params}, tokens)
      else:
        logits = calibrate.apply(model, params, tokens, recipe=how, rngs=rngs)
    return jnp.mean(loss.next_token_nats(logits, tokens))

  options = {}
  if mesh is not None:
    shapes = jax.eval_shape(functools.partial(init, config, model))
    where = mesh_lib.state_shardings(shapes, mesh)
    options['out_shardings'] = (where, mesh_lib.replicated(mesh))

  @functools.partial(jax.jit, donate_argnums=0, **options)
  def step(state, tokens):
    key = jax.random.fold_in(jax.random.key(config.seed), state.step)
    rngs = {'lowbit': key}
    nats, grads = jax.value_and_grad(loss_fn)(state.params, tokens, rngs)
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


@functools.cache
def _window_bits_over(mesh):
  """`window_bits` of spread params, with a result that every process has."""
  everywhere = mesh_lib.replicated(mesh)
  run = jax.jit(
    window_bits.__wrapped__, static_argnums=0, out_shardings=everywhere
  )
  return lambda model, params, tokens: run(
    model, params, jax.device_put(tokens, everywhere)
  )


def evaluate(
  model, params, rows: np.ndarray, batch: int = 16, mesh=None
) -> np.ndarray:
  """Bits per byte of each window of `rows` [n, T] -> float64 [n]."""
  bits = window_bits if mesh is None else _window_bits_over(mesh)
  parts = [
    bits(model, params, rows[i : i + batch]) for i in range(0, len(rows), batch)
  ]
  return np.concatenate([np.asarray(p, np.float64) for p in parts])


def run(
  config,
  save: Callable[[TrainState], None],
  restore: Callable[[TrainState], TrainState],
  log: Callable[[dict], None],
  progress: Callable[[int], None] = lambda step: None,
  mesh=None,
  stop: Callable[[int], bool] = lambda step: False,
) -> TrainState:
  """Trains to config.steps.

  Args:
    config: `configs/pretrain/embedded.py` names the fields.
    save: Called every config.checkpoint_every steps, and at the end.
    restore: Maps the initial state to the newest saved one, or to itself.
    log: Called with a row (step, bytes, bits per byte, ...) every
      config.evaluate_every steps.
    progress: Called with the number of steps done, after each.
    mesh: Over which the run is spread; None for one device.
    stop: Asked after each step; True saves and ends the run early.

  Returns:
    The last state.
  """
  model = decoder.Decoder(decoder.DecoderConfig(**config.model))
  texts = text.load(config.data.path)
  held_out = text.sample(texts, 'calibration', 32, config.sequence)
  if config.data.extra:
    texts = texts + text.load(config.data.extra)
  pieces = [piece for t in texts for piece in text.split(t, 'train')]
  state = (
    init(config, model) if mesh is None else init_sharded(config, model, mesh)
  )
  state = restore(state)
  step_fn = make_step(config, model, mesh)
  start, begun = int(state.step), time.monotonic()
  for done in range(start + 1, config.steps + 1):
    tokens = text.training_batch(
      pieces, done - 1, config.batch, config.sequence, config.seed
    )
    if mesh is not None:
      tokens = mesh_lib.global_batch(tokens, mesh)
    state, metrics = step_fn(state, tokens)
    progress(done)
    stops = stop(done)
    last = done == config.steps or stops
    if done % config.evaluate_every == 0 or last:
      speed = (done - start) / (time.monotonic() - begun)
      log(_row(config, model, state, metrics, held_out, speed, mesh))
    if done % config.checkpoint_every == 0 or last:
      save(state)
    if stops:
      break
  return state


def _row(config, model, state, metrics, held_out, speed, mesh) -> dict:
  step = int(state.step)
  bits = evaluate(model, state.params, held_out, mesh=mesh)
  return {
    'step': step,
    'bytes': step * config.batch * config.sequence,
    'train_bits_per_byte': float(metrics['loss_nats']) / LN2,
    'bits_per_byte': float(bits.mean()),
    'gradient_norm': float(metrics['gradient_norm']),
    'steps_per_second': speed,
  }
