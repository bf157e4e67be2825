"""Where the products of NNX layers can be met: paths, axes, arguments."""

import dataclasses
from collections.abc import Callable

from flax import nnx

from lowbit.intercept import layers


@dataclasses.dataclass(frozen=True)
class Site:
  """One weight of one layer, and where its product is injected."""

  path: str  # Of the weight.
  weight: str  # Name of the attribute.
  argument: str | None  # Of the layer that takes a product; None for a look-up.
  shape: tuple[int, ...]  # As the layer declares it, without stacked axes.
  found: layers.Contraction


def sites(model: nnx.Module) -> dict[str, tuple[nnx.Module, Site]]:
  """Every weight in a product that can be met, by path.

  Raises:
    ValueError: If a layer has what lowbit does not know how to meet.
  """
  result = {}
  for path, layer in nnx.iter_modules(model):
    build = next(
      (b for kind, b in KNOWN.items() if isinstance(layer, kind)), None
    )
    if build is None:
      continue
    weight, argument, shape, found = build(layer)
    name = '/'.join(str(part) for part in (*path, weight))
    if getattr(layer, 'mask', None) is not None:
      raise ValueError(
        f'{name} has a mask, which a quantized weight cannot take. Multiply '
        'the weight by it, and set the mask to None.'
      )
    if getattr(layer, 'dot_general_cls', None) is not None:
      raise ValueError(
        f'{name} has a `dot_general_cls`, which would win over what is '
        'injected. Set it to None, or use `dot_general`.'
      )
    result[name] = layer, Site(name, weight, argument, shape, found)
  return result


def _linear(layer):
  found = layers.Contraction('kernel', (-1,), (-2,), True)
  shape = layer.in_features, layer.out_features
  return 'kernel', 'dot_general', shape, found


def _linear_general(layer):
  spread = lambda v: tuple(v) if isinstance(v, tuple | list) else (v,)
  batch = len(layer.batch_axis)
  inputs, outputs = spread(layer.in_features), spread(layer.out_features)
  shape = (*layer.batch_axis.values(), *inputs, *outputs)
  ndim = len(shape)
  weights = tuple(range(batch - ndim, batch - ndim + len(inputs)))
  brought = tuple(range(-len(outputs), 0))
  axis = spread(layer.axis)
  found = layers.Contraction(
    'kernel', axis, weights, not batch, brought, brought, batch > 0
  )
  return 'kernel', 'dot_general', shape, found


def _einsum(layer):
  if layer.einsum_str is None:
    raise ValueError(
      'An nnx.Einsum gets its equation at each call, so that the axes of its '
      'weight are not known. Give it to the layer as `einsum_str`.'
    )
  found = layers.einsum(layer.einsum_str)
  return 'kernel', 'einsum_op', tuple(layer.kernel_shape), found


def _conv(layer):
  shape = tuple(layer.kernel_shape)
  return 'kernel', 'conv_general_dilated', shape, layers.conv(len(shape))


def _conv_transpose(layer):
  shape = tuple(layer.kernel_shape)
  return 'kernel', None, shape, layers.conv(len(shape))


def _embed(layer):
  found = layers.Contraction('embedding', None, (-1,), False)
  return 'embedding', None, (layer.num_embeddings, layer.features), found


KNOWN: dict[type, Callable] = {
  nnx.Linear: _linear,
  nnx.LinearGeneral: _linear_general,
  nnx.Einsum: _einsum,
  nnx.Conv: _conv,
  nnx.ConvTranspose: _conv_transpose,
  nnx.Embed: _embed,
}


def stacked(layer, site) -> tuple[int, ...]:
  """Axes of stacked layers (nnx.vmap over the constructor)."""
  value = getattr(layer, site.weight).get_value()
  return value.shape[: value.ndim - len(site.shape)]
