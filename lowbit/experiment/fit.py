"""Short trainings in one compiled program: for claims and tests.

A run is one scan over steps: the batches of a run depend on its seed alone, so
that a recipe and its ablation see the same data in the same order.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax


class Fitted(NamedTuple):
  """What a run ends with."""

  variables: dict  # {'params': ..., and whatever else was trained}.
  losses: jax.Array  # float32 [steps].
  state: optax.OptState  # To go on from.
  watched: object = ()  # What `watch` saw, with a leading axis of steps.


def _as_it_is(variables, step):
  del step
  return variables


def _nothing(variables, state):
  del variables, state
  return ()


def one_gradient(f: Callable, variables: dict):
  """value, gradients, and no more for the optimizer: {}."""
  return *jax.value_and_grad(f)(variables), {}


def fit(
  loss: Callable,
  variables: dict,
  data: tuple[jax.Array, ...],
  tx: optax.GradientTransformation,
  steps: int,
  batch: int,
  seed: int = 0,
  project: Callable = _as_it_is,
  start: int = 0,
  state: optax.OptState | None = None,
  gradients: Callable = one_gradient,
  watch: Callable = _nothing,
) -> Fitted:
  """Trains `variables` by minibatches.

  A run in pieces, each from the `variables`, `state` and step where the last
  one ended, is the run in one piece, and compiled once if all functions in it
  are the same objects.

  Args:
    loss: (variables, minibatch, step, key) -> scalar; minibatch is a tuple like
      `data`, step int32 [], key a fresh PRNG key.
    variables: All that is trained, such as {'params': ..., 'quantizers': ...}.
    data: Arrays with one leading axis of examples.
    tx: Optimizer of the whole tree.
    steps: Number of steps.
    batch: Examples a step, drawn without replacement.
    seed: Of the minibatches and keys.
    project: Applied after every update: (variables, step) -> variables.
    start: Number of the first step.
    state: Of the optimizer; None for a new one.
    gradients: (f, variables) -> value, gradients, further arguments for
      tx.update; f is the loss of one minibatch.
    watch: (variables, state) after an update -> a tree of arrays to keep.

  Returns:
    A `Fitted`.

  Raises:
    ValueError: If a batch is larger than the data.
  """
  count = data[0].shape[0]
  if not 1 <= batch <= count:
    raise ValueError(f'`batch` must lie in 1..{count}, got {batch}.')
  numbers = start + jnp.arange(steps)
  key = jax.random.key(seed)
  with jax.numpy_dtype_promotion('standard'):  # optax divides by a count.
    state = jax.jit(tx.init)(variables) if state is None else state
    how = (loss, tx, project, batch, gradients, watch)
    return _run(how, variables, state, data, numbers, key)


@functools.partial(jax.jit, static_argnums=0)
def _run(how, variables, state, data, steps, key):
  loss, tx, project, batch, gradients, watch = how
  count = data[0].shape[0]

  def step(carry, i):
    variables, state = carry
    picks_key, loss_key = jax.random.split(jax.random.fold_in(key, i))
    picks = jax.random.choice(picks_key, count, (batch,), replace=False)
    minibatch = tuple(d[picks] for d in data)
    value, grads, extra = gradients(
      lambda v: loss(v, minibatch, i, loss_key), variables
    )
    updates, state = tx.update(grads, state, variables, **extra)
    variables = project(optax.apply_updates(variables, updates), i)
    return (variables, state), (value, watch(variables, state))

  (variables, state), (losses, watched) = jax.lax.scan(
    step, (variables, state), steps
  )
  return Fitted(variables, losses, state, watched)


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
  """Mean negative log-likelihood, nats: logits [B, C], labels int32 [B]."""
  log_p = jax.nn.log_softmax(logits.astype(jnp.float32))
  return -jnp.mean(jnp.take_along_axis(log_p, labels[:, None], axis=-1))


def accuracy(logits: jax.Array, labels: jax.Array) -> jax.Array:
  """Share of examples whose largest logit is the label: float32 []."""
  return jnp.mean((jnp.argmax(logits, axis=-1) == labels).astype(jnp.float32))
