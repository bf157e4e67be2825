"""Optimizer steps: time and state bytes, as ratios to optax, in one process.

A step is update and apply, jitted, state and parameters donated. Steps of both
optimizers take turns, and the least of several times counts, so that other load
on the machine falls on both. `rows()` is what a benchmark script prints.
"""

import time
from collections.abc import Callable, Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lowbit import optim

SHAPES = ((1024, 1024), (1024, 4096), (4096, 1024))  # 9.4 million parameters.


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


def least_seconds(
  calls: Sequence[Callable[[], None]], repeats: int, clock=time.perf_counter
) -> list[float]:
  """The least time of each call, the calls taking turns."""
  for call in calls:
    call()
  least = [float('inf')] * len(calls)
  for _ in range(repeats):
    for i, call in enumerate(calls):
      start = clock()
      call()
      least[i] = min(least[i], clock() - start)
  return least


def rows(
  shapes: Sequence[tuple[int, ...]] = SHAPES,
  repeats: int = 20,
  clock=time.perf_counter,
) -> Iterator[dict]:
  """One row an optimizer: milliseconds, and ratios of time and state bytes.

  Args:
    shapes: Of the parameters, float32.
    repeats: Steps of which the fastest counts.
    clock: `time.process_time` counts the CPU seconds of all threads instead,
      for machines that are shared.
  """
  params = _parameters(shapes)
  gradients = jax.tree.map(lambda p: 0.1 * p, params)
  with jax.numpy_dtype_promotion('standard'):  # optax needs it.
    for name, (low, full) in pairs().items():
      calls = [_stepper(tx, params, gradients) for tx in (low, full)]
      seconds = least_seconds(calls, repeats, clock)
      bits = [
        optim.state_bits(jax.eval_shape(tx.init, params)) for tx in (low, full)
      ]
      yield {
        'suite': 'train',
        'case': name,
        'ms': 1e3 * seconds[0],
        'float_ms': 1e3 * seconds[1],
        'time_ratio': seconds[0] / seconds[1],
        'state_bytes': bits[0] // 8,
        'float_state_bytes': bits[1] // 8,
        'bytes_ratio': bits[0] / bits[1],
      }
