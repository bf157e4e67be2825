"""Training in fixed point whose words are decided anew as it goes: AdaPT.

Master weights are float32; the forward pass sees weights and inputs in a
layer's fixed point, rounded stochastically (`recipes.adapt_fixedpoint`).
Between pieces of a run the host decides on each layer whose lookback is over
(`quantize.adaptive_fixed.Controller`); the words are data, so that all pieces
run one program. Kummer et al., 2021 (arXiv:2107.13490).
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lowbit import optim
from lowbit.experiment import fit
from lowbit.quantize import adaptive_fixed
from lowbit.transforms import structure


class Trained(NamedTuple):
  """What a run ends with, and the words it went through."""

  variables: dict
  losses: np.ndarray  # float32 [steps].
  words: dict[str, np.ndarray]  # Weight path -> int [pieces], bits.


def train(
  loss: Callable,
  variables: dict,
  data: tuple[jax.Array, ...],
  tx: optax.GradientTransformation,
  steps: int,
  batch: int,
  seed: int = 0,
  controller: adaptive_fixed.Controller | None = None,
) -> Trained:
  """Trains by minibatches, and decides on words between.

  Args:
    loss: As `fit.fit` takes it.
    variables: {'params', 'quantizers'}; all quantizers are `TracedFixed`.
    data: Arrays with one leading axis of examples.
    tx: Optimizer.
    steps: A multiple of the controller's shortest lookback.
    batch: Examples a step.
    seed: Of minibatches and keys.
    controller: None leaves the first words as they are.

  Returns:
    A `Trained`.

  Raises:
    ValueError: If `steps` is no such multiple.
  """
  piece = (controller or adaptive_fixed.Controller()).lookback[0]
  if steps % piece or steps < 1:
    raise ValueError(
      f'`steps` must be a multiple of the shortest lookback, {piece}; got '
      f'{steps}.'
    )
  layers = _layers(variables['quantizers'], controller)
  since, strategy = dict.fromkeys(layers, 0), adaptive_fixed.STRATEGIES[0]
  tx, state, losses, words = _tracked(tx), None, [], []
  for start in range(0, steps, piece):
    words.append({path: layer.word for path, layer in layers.items()})
    variables, got, state, _ = fit.fit(
      loss, variables, data, tx, piece, batch, seed, start=start, state=state
    )
    losses.append(np.asarray(got))
    if controller is None:
      continue
    if start:
      mean = [float(np.mean(x)) for x in losses[-2:]]
      strategy = adaptive_fixed.next_strategy(strategy, *mean)
    since = {path: count + piece for path, count in since.items()}
    due = {path for path in since if since[path] >= layers[path].lookback}
    spread = optim.diversity(state)['params']
    for path in due:
      w = np.asarray(structure.get(variables['params'], path))
      g = float(structure.get(spread, path))
      layers[path] = controller.decide(layers[path], w, g, strategy)
    since |= dict.fromkeys(due, 0)
    state = optim.forget(state, _marked(variables, due))
    tree = _with_words(variables['quantizers'], layers)
    variables = variables | {'quantizers': tree}
  course = {path: np.asarray([w[path] for w in words]) for path in layers}
  return Trained(variables, np.concatenate(losses), course)


@functools.cache
def _tracked(tx):
  """One object for each `tx`, so that runs share their compiled program."""
  return optax.chain(optim.track_diversity(), tx)


def penalty(variables: dict, l1: float, l2: float) -> jax.Array:
  """l1 |w|_1 + l2 / 2 (word / 32) |w|^2, summed over layers: float32 [].

  The first makes weights sparse, the second short where words are long.
  """
  total = jnp.float32(0)
  for path, node in _nodes(variables['quantizers']).items():
    w = structure.get(variables['params'], path)
    share = jax.lax.stop_gradient(node['word']) / adaptive_fixed.MAX
    size = l1 * jnp.sum(jnp.abs(w)) + l2 / 2 * share * jnp.sum(w**2)
    total = total + size
  return total


def mean_word(words: dict[str, np.ndarray], params: dict) -> float:
  """Mean word length over the weights and the steps of a run, bits."""
  size = {path: structure.get(params, path).size for path in words}
  total = sum(size[path] * float(np.mean(w)) for path, w in words.items())
  return total / sum(size.values())


def _name(path) -> str:
  return '/'.join(str(getattr(k, 'key', k)) for k in path)


def _nodes(quantizers) -> dict[str, dict]:
  """Weight path -> parameters of the weight's `TracedFixed`."""
  is_node = lambda x: isinstance(x, dict) and 'word' in x
  found = jax.tree_util.tree_leaves_with_path(quantizers, is_leaf=is_node)
  return {
    _name(path[:-1]): node
    for path, node in found
    if path[-1].key == 'weight' and is_node(node)
  }


def _layers(quantizers, controller):
  controller = controller or adaptive_fixed.Controller()
  return {
    path: controller.start(int(node['word']), int(node['fraction']))
    for path, node in _nodes(quantizers).items()
  }


def _marked(variables, paths):
  """A tree like `variables`: whether a leaf is one of these weights."""
  return jax.tree_util.tree_map_with_path(
    lambda path, _: jnp.bool_(_name(path) in {f'params/{p}' for p in paths}),
    variables,
  )


def _with_words(quantizers, layers):
  """The tree with each layer's words set, for its weight and its input."""

  def leaf(path, value):
    layer = layers.get(_name(path[:-2]))
    return jnp.float32(getattr(layer, path[-1].key)) if layer else value

  return jax.tree_util.tree_map_with_path(leaf, quantizers)
