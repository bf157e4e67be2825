"""`Recipe.prepare` on NNX models: rewrites of params before quantization.

The rewrites know the names of lowbit's Linen decoder, see
`transforms.rmsnorm_decoder`: an NNX model that has them, its layers as
attributes layers_0, layers_1, ..., as a list `layers`, or stacked under
`layers` for nnx.scan, is rewritten alike.
"""

import re
from collections.abc import Callable, Mapping

from flax import nnx

from lowbit import intercept


def rewritten(
  model: nnx.Module, recipe: intercept.Recipe, statistics: Callable
) -> nnx.Module:
  """A clone whose params went through `recipe.prepare`.

  Args:
    model: A float model; it stays as it is.
    recipe: Its steps (params, statistics) -> params.
    statistics: model -> weight path -> `solvers.Statistics`.

  Raises:
    ValueError: If the model has not the names that a step needs.
  """
  clone = nnx.clone(model)
  for step in recipe.prepare:
    state = nnx.state(clone, nnx.Param)
    tree = nnx.to_pure_dict(state)
    seen = lambda: {_named(p): s for p, s in statistics(clone).items()}
    try:
      params = step(_joined(tree), seen)
    except ValueError as error:
      raise ValueError(
        f'Recipe {recipe.name!r} rewrites params first, by '
        f'{type(step).__name__}, which knows the names of '
        f'lowbit.models.decoder: {error}'
      ) from error
    nnx.replace_by_pure_dict(state, _split(params, tree))
    nnx.update(clone, state)
  return clone


def _named(path: str) -> str:
  """layers/0/... -> layers_0/..., as in Linen."""
  return re.sub(r'^(\w+)/(\d+)/', r'\1_\2/', path)


def _is_list(node) -> bool:
  return isinstance(node, Mapping) and all(isinstance(k, int) for k in node)


def _joined(tree: Mapping) -> dict:
  """Lists of layers, {'layers': {0: x}}, by Linen's names, {'layers_0': x}."""
  found = {}
  for key, node in tree.items():
    parts = {f'{key}_{i}': x for i, x in node.items()} if _is_list(node) else {}
    found |= parts or {key: node}
  return found


def _split(params: Mapping, like: Mapping) -> dict:
  """The inverse of `_joined`, for a tree that it came from."""
  return {
    key: {i: params[f'{key}_{i}'] for i in node}
    if _is_list(node) and node
    else params[key]
    for key, node in like.items()
  }
