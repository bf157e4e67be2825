"""From the tensors of a checkpoint to a params tree, checked before read.

A layout says for every param of ours which tensor of theirs it is, and how that
is turned. Names and shapes are compared first, from headers alone.
"""

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np


class Checkpoint(Protocol):
  """Named tensors in a file, or several."""

  path: object
  shapes: Mapping[str, tuple[int, ...]]

  def read(self, name: str) -> np.ndarray:
    """A tensor as finite float32, of `shapes[name]`."""

  def release(self) -> None:
    """Gives back the memory of mapped pages; they are read again on need."""


@dataclasses.dataclass(frozen=True)
class Source:
  """A tensor of theirs, and how it becomes a param of ours."""

  name: str
  turn: Callable = lambda x: x  # An array to an array; slices, axes, reshapes.


def kernel(name: str) -> Source:
  """A weight [out, in] as Flax has it, [in, out]."""
  return Source(name, lambda w: w.T)


def norm(theirs: str, ours: str) -> dict[str, Source]:
  """A layer norm: scale and bias."""
  return {
    f'{ours}/scale': Source(f'{theirs}.weight'),
    f'{ours}/bias': Source(f'{theirs}.bias'),
  }


def dense(theirs: str, ours: str, bias: bool = True) -> dict[str, Source]:
  """A dense layer whose weight is [out, in], with or without a bias."""
  found = {f'{ours}/kernel': kernel(f'{theirs}.weight')}
  if bias:
    found[f'{ours}/bias'] = Source(f'{theirs}.bias')
  return found


def fused(theirs: str, ours: Sequence[str]) -> dict[str, Source]:
  """Dense layers with biases, their rows one after another in one tensor."""
  found = {}
  for i, path in enumerate(ours):
    part = lambda w, i=i: w.reshape(len(ours), -1, *w.shape[1:])[i]
    found[f'{path}/kernel'] = Source(
      f'{theirs}.weight', lambda w, f=part: f(w).T
    )
    found[f'{path}/bias'] = Source(f'{theirs}.bias', part)
  return found


def patches(name: str) -> Source:
  """A weight of a 2-D convolution [out, in, h, w] as [h, w, in, out]."""
  return Source(name, lambda w: w.transpose(2, 3, 1, 0))


def unpermute(heads: int) -> Callable:
  """Undoes the order of rows that GGUF keeps for interleaved rotary pairs.

  GGUF's llama has rows 0, C/2, 1, C/2 + 1, ... of each head of C rows; the
  order of rotate-half is 0, 1, 2, ...
  """

  def turn(w):
    pairs = w.reshape(heads, -1, 2, *w.shape[1:])
    return pairs.swapaxes(1, 2).reshape(w.shape)

  return turn


def permute(heads: int) -> Callable:
  """The inverse of `unpermute`."""

  def turn(w):
    halves = w.reshape(heads, 2, -1, *w.shape[1:])
    return halves.swapaxes(1, 2).reshape(w.shape)

  return turn


@dataclasses.dataclass(frozen=True)
class Plan:
  """A checked layout: what is read for which param, and nothing read yet."""

  checkpoint: Checkpoint
  sources: Mapping[str, Source]  # Path of a param -> its source.

  def read(self, *tops: str) -> dict:
    """Params as a nested dict of float32 arrays.

    Args:
      *tops: Top keys to read, such as 'layers_0'; none reads all.

    Raises:
      ValueError: If one is not finite.
    """
    params: dict = {}
    for path, source in self.sources.items():
      if tops and path.partition('/')[0] not in tops:
        continue
      value = source.turn(self.checkpoint.read(source.name))
      _put(params, path, jnp.asarray(np.ascontiguousarray(value)))
    return params


def plan(
  checkpoint: Checkpoint,
  model,
  inputs,
  layout: Mapping[str, Source],
  ignored: str = '',
) -> Plan:
  """Compares a layout with the tensors of a checkpoint, and the model's sizes.

  Args:
    checkpoint: Where they are.
    model: The Linen module that they are for.
    inputs: Example arguments of the model; shapes alone suffice.
    layout: Path of a param -> its source; all params of the model.
    ignored: Regular expression of tensors that the checkpoint may hold besides.

  Raises:
    ValueError: If tensors are missing, unknown, or of another shape.
  """
  wanted = _wanted(model, inputs)
  if set(layout) != set(wanted):
    odd = sorted(set(layout) ^ set(wanted))
    raise ValueError(f'`layout` does not fit the model: {odd}.')
  sources = {s.name for s in layout.values()}
  missing = sources - set(checkpoint.shapes)
  extra = {
    name
    for name in set(checkpoint.shapes) - sources
    if not (ignored and re.fullmatch(ignored, name))
  }
  if missing or extra:
    raise ValueError(
      f'`path` {checkpoint.path} does not fit {type(model).__name__}: missing '
      f'{_list(missing)}, unknown {_list(extra)}.'
    )
  for path, source in layout.items():
    _check_shape(checkpoint, source, wanted[path])
  return Plan(checkpoint, layout)


def assemble(
  checkpoint: Checkpoint,
  model,
  inputs,
  layout: Mapping[str, Source],
  ignored: str = '',
) -> dict:
  """The params of a model: everything that `plan`, of these args, reads."""
  return plan(checkpoint, model, inputs, layout, ignored).read()


def _wanted(model, inputs) -> dict[str, tuple[int, ...]]:
  shapes = jax.eval_shape(model.init, jax.random.key(0), *inputs)['params']
  leaves = jax.tree_util.tree_leaves_with_path(shapes)
  return {'/'.join(k.key for k in p): leaf.shape for p, leaf in leaves}


def _list(names) -> str:
  """The first names of many."""
  names = sorted(names)
  rest = f' and {len(names) - 8} more' if len(names) > 8 else ''
  return f'{names[:8]}{rest}'


def _check_shape(checkpoint, source: Source, shape) -> None:
  found = checkpoint.shapes[source.name]
  try:
    turned = jax.eval_shape(
      source.turn, jax.ShapeDtypeStruct(found, jnp.float32)
    ).shape
  except (TypeError, ValueError):  # A reshape that does not divide.
    turned = None
  if turned != shape:
    raise ValueError(
      f'Tensor {source.name} of `path` {checkpoint.path} has the shape '
      f'{found}; the sizes of the model ask for {shape} once it is turned.'
    )


def _put(params: dict, path: str, leaf) -> None:
  *parents, last = path.split('/')
  for parent in parents:
    params = params.setdefault(parent, {})
  params[last] = leaf
