"""Which params does a model multiply with? Read from its jaxpr, not guessed."""

import dataclasses
import math
from collections.abc import Callable

import jax
from jax.extend import core

# Operations that hand a weight on to a matmul, possibly cast or reshaped.
CARRIERS = frozenset(
  {
    'convert_element_type',
    'transpose',
    'reshape',
    'squeeze',
    'copy',
    'broadcast_in_dim',
    'slice',
    'dynamic_slice',
    'expand_dims',
    'split',
    'stop_gradient',
    'sharding_constraint',
    'optimization_barrier',
  }
)
PRODUCTS = frozenset({'dot_general', 'conv_general_dilated', 'ragged_dot'})


@dataclasses.dataclass(frozen=True)
class Matmul:
  """One product of a model with a param."""

  path: str
  primitive: str
  shape: tuple[int, ...]  # Of the weight as it is multiplied.
  output: tuple[int, ...]


def matmuls(apply: Callable, params, *args) -> tuple[Matmul, ...]:
  """Every product in apply(params, *args) that has a param as an operand.

  Args:
    apply: A function of a params tree and arrays, traced here, not run.
    params: Nested dicts of arrays or of `jax.ShapeDtypeStruct`.
    *args: Further arguments, likewise.

  Returns:
    One entry a product, in program order; a scanned layer appears once.
  """
  leaves = jax.tree_util.tree_leaves_with_path(params)
  paths = ['/'.join(str(k.key) for k in path) for path, _ in leaves]
  closed = jax.make_jaxpr(apply)(params, *args)
  origins = dict(zip(closed.jaxpr.invars, paths))
  found: list[Matmul] = []
  _walk(closed.jaxpr, origins, found)
  return tuple(found)


def _walk(jaxpr, origins: dict, found: list) -> list:
  """Adds the products of `jaxpr`; returns the origin of each output."""
  of = lambda v: None if isinstance(v, core.Literal) else origins.get(v)
  for eqn in jaxpr.eqns:
    name = eqn.primitive.name
    if name in PRODUCTS and _contracts(eqn):
      for v in eqn.invars[:2]:
        if of(v) is not None:
          output = tuple(eqn.outvars[0].aval.shape)
          found.append(Matmul(of(v), name, tuple(v.aval.shape), output))
    elif name in CARRIERS:
      for out in eqn.outvars:
        origins[out] = of(eqn.invars[0])
    for inner in _inner(eqn):
      # The operands of a call are the last inputs of its jaxpr (a loop's
      # bounds and a branch's index come before them).
      operands = eqn.invars[len(eqn.invars) - len(inner.invars) :]
      inside = {v: of(o) for v, o in zip(inner.invars, operands)}
      results = _walk(inner, inside, found)
      if len(results) == len(eqn.outvars):
        origins.update(zip(eqn.outvars, results))
  return [of(v) for v in jaxpr.outvars]


def _contracts(eqn) -> bool:
  """Whether a product sums over something: a gain's einsum does not."""
  numbers = eqn.params.get('dimension_numbers')
  return eqn.primitive.name != 'dot_general' or bool(numbers[0][0])


def _inner(eqn):
  for value in eqn.params.values():
    for item in value if isinstance(value, tuple | list) else (value,):
      if isinstance(item, core.ClosedJaxpr):
        yield item.jaxpr
      elif isinstance(item, core.Jaxpr):
        yield item


def weight_count(found: tuple[Matmul, ...]) -> int:
  """Number of distinct weights in products."""
  return sum(math.prod(m.shape) for m in {m.path: m for m in found}.values())
