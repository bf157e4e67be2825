"""Suite `train`: training steps and optimizers next to their float versions.

An optimizer's step is update and apply, jitted, state and parameters donated.
Steps of both optimizers take turns, and the least of several times counts, so
that other load on the machine falls on both.
"""

from collections.abc import Callable, Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lowbit import optim
from lowbit.experiment import timing, training_steps


def rows(settings: timing.Settings) -> Iterator[dict]:
  """Yields a row for each training step, then one for each optimizer.

  The parameters of the optimizers are two matrices [size, size / 2]. For the
  keys see `training_steps.rows` and `optimizer_rows`.
  """
  yield from training_steps.rows(settings)
  shapes = ((settings.size, max(settings.size // 2, 1)),) * 2
  yield from optimizer_rows(settings, shapes)


def pairs() -> dict[str, tuple]:
  """name -> (low-precision optimizer, the float32 one it stands for)."""
  return {
    'adamw8bit': (optim.adamw8bit(1e-3), optax.adamw(1e-3)),
    'adamw4bit': (optim.adamw4bit(1e-3), optax.adamw(1e-3)),
    'momentum8bit': (optim.momentum8bit(1e-3), optax.sgd(1e-3, 0.9)),
    'lion8bit': (optim.lion8bit(1e-3), optax.lion(1e-3)),
  }


def _parameters(shapes):
  rng = np.random.default_rng(0)
  draw = lambda s: jnp.asarray(rng.normal(size=s).astype(np.float32)) * 0.02
  return {f'w{i}': draw(shape) for i, shape in enumerate(shapes)}


def _stepper(tx, params, gradients) -> Callable[[], None]:
  """A call takes one step, and waits for it."""

  @jax.jit
  def init(params):
    return tx.init(params)

  def step(state, params, gradients):  # As an argument: no constant.
    updates, state = tx.update(gradients, state, params)
    return state, optax.apply_updates(params, updates)

  step = jax.jit(step, donate_argnums=(0, 1))
  held = [init(params), jax.tree.map(jnp.copy, params)]

  def run():
    held[:] = step(*held, gradients)
    jax.block_until_ready(held)

  return run


def optimizer_rows(
  settings: timing.Settings, shapes: Sequence[tuple[int, ...]]
) -> Iterator[dict]:
  """One row an optimizer.

  Keys: `ms`, `float_ms`; `times_float`, their ratio, and `cpu_times_float`, the
  same by the processor time of all threads; `state_bytes`, and `bytes_of_float`
  as a fraction of the float32 state.

  Args:
    settings: `repeats` and `only`.
    shapes: Of the parameters, float32.
  """
  params = _parameters(shapes)
  gradients = jax.tree.map(lambda p: 0.1 * p, params)
  with jax.numpy_dtype_promotion('standard'):  # optax needs it.
    for name, pair in pairs().items():
      if not settings.wants(name):
        continue
      steps = {
        kind: _stepper(tx, params, gradients)
        for kind, tx in zip(('own', 'float'), pair)
      }
      seconds = timing.best_seconds(steps, settings.repeats)
      bits = [optim.state_bits(jax.eval_shape(tx.init, params)) for tx in pair]
      own, full = seconds['own'], seconds['float']
      yield {
        'case': name,
        'ms': 1e3 * own.wall,
        'float_ms': 1e3 * full.wall,
        'times_float': own.wall / full.wall,
        'cpu_times_float': own.cpu / full.cpu,
        'state_bytes': bits[0] // 8,
        'bytes_of_float': bits[0] / bits[1],
      }
