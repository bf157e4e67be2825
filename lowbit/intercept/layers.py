"""What lowbit knows of Flax's layers: which axes they contract."""

import dataclasses
from collections.abc import Callable

import jax
from flax import linen as nn

Axes = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Contraction:
  """The product inside a layer: its weight, and the axes that are summed."""

  weight: str  # Name of the param: 'kernel' or 'embedding'.
  input_axes: Axes | None  # Of the input, negative; None for a look-up.
  weight_axes: Axes  # Of the weight, negative.
  matrix: bool  # Whether `dot_general` may be injected.
  outputs: Axes = (-1,)  # Of the result: those that the weight brings.
  weight_outputs: Axes = (-1,)  # The same axes in the weight.
  batched: bool = False  # Axes that weight and input share are not summed.


def _dense(module, x) -> Contraction:
  return Contraction('kernel', (-1,), (-2,), True)


def _dense_general(module, x) -> Contraction:
  axis = module.axis if isinstance(module.axis, tuple) else (module.axis,)
  features = module.features
  out = len(features) if isinstance(features, tuple) else 1
  count, batch = len(axis), len(module.batch_dims)
  ndim = batch + count + out
  inputs = tuple(a if a < 0 else a - x.ndim for a in axis)
  weights = tuple(range(batch - ndim, batch - ndim + count))
  brought = tuple(range(-out, 0))
  return Contraction(
    'kernel', inputs, weights, batch == 0, brought, brought, batch > 0
  )


def _conv(module, x) -> Contraction:
  return conv(len(module.kernel_size) + 2)


def conv(ndim: int) -> Contraction:
  """Of a kernel [*window, in, out] of `ndim` axes."""
  return Contraction('kernel', (-1,), tuple(range(-ndim, -1)), False)


def _einsum(module, x) -> Contraction:
  return einsum(module.einsum_str)


def einsum(text: str) -> Contraction:
  """Of an equation 'input,kernel->result'."""
  inputs, _, result = text.replace(' ', '').partition('->')
  left, right = inputs.split(',')
  left = left.replace('...', '')
  summed = [c for c in right if c in left and c not in result]
  brought = [c for c in right if c not in left]
  result = result.replace('...', '')
  place = lambda text, chosen: tuple(text.index(c) - len(text) for c in chosen)
  return Contraction(
    'kernel',
    place(left, summed),
    place(right, summed),
    False,
    place(result, brought),
    place(right, brought),
    any(c in left and c in result for c in right),
  )


def _embed(module, x) -> Contraction:
  return Contraction('embedding', None, (-1,), False)


KNOWN: dict[type, Callable] = {
  nn.Dense: _dense,
  nn.DenseGeneral: _dense_general,
  nn.Conv: _conv,
  nn.ConvTranspose: _conv,
  nn.Einsum: _einsum,
  nn.Embed: _embed,
}


def contraction(module: nn.Module, method: str, x: jax.Array):
  """The product of a call, or None for a module that has none of its own."""
  for kind, build in KNOWN.items():
    if isinstance(module, kind):
      if kind is nn.Embed and method == 'attend':
        return Contraction(
          'embedding', (-1,), (-1,), False, weight_outputs=(-2,)
        )
      return build(module, x) if method == '__call__' else None
  return None


def weight_path(module: nn.Module, weight: str) -> str:
  """The path of a module's weight in the params tree."""
  return '/'.join((*module.path, weight))
