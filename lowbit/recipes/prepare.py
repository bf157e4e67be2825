"""Rewrites of a decoder's params that a recipe does before it quantizes.

Each step is a frozen callable (params, statistics) -> params for
`Recipe.prepare`; statistics() calibrates the params as they are by then.
"""

import dataclasses
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp

from lowbit import quantize, solvers, transforms
from lowbit.transforms import structure as structure_lib


@dataclasses.dataclass(frozen=True)
class FoldNorms:
  """Folds every norm's gain into the weights that read it."""

  def __call__(self, params: Mapping, statistics: Callable) -> dict:
    """Returns params of the same function with gains 1."""
    del statistics
    return transforms.fold_norms(params, transforms.rmsnorm_decoder(params))


@dataclasses.dataclass(frozen=True)
class RotateResidual:
  """Rotates the residual stream by a randomized Hadamard transform."""

  seed: int = 0

  def __call__(self, params: Mapping, statistics: Callable) -> dict:
    """Returns params of the same function in a rotated basis."""
    del statistics
    structure = transforms.rmsnorm_decoder(params)
    width = _width(params, structure)
    block = transforms.largest_block(width)
    rotation = transforms.Hadamard(
      width, None if block == width else block, self.seed
    )
    return transforms.rotate_residual(params, structure, rotation)


def _width(params, structure) -> int:
  """Length of the residual stream, in whichever part of a decoder."""
  if structure.embedding:
    return structure_lib.get(params, structure.embedding).shape[-1]
  norm, _ = structure.norms[0]
  return structure_lib.get(params, norm).shape[-1]


@dataclasses.dataclass(frozen=True)
class Smooth:
  """SmoothQuant's scales, folded in the norms."""

  alpha: float = 0.5

  def __call__(self, params: Mapping, statistics: Callable) -> dict:
    """Returns params of the same function with smoother activations."""
    structure = transforms.rmsnorm_decoder(params)
    return transforms.smooth(params, structure, statistics(), self.alpha)


@dataclasses.dataclass(frozen=True)
class AwqScale:
  """AWQ's searched scales, folded in the norms and in up -> down.

  The head is left alone, as in the released code; so is out, whose scales
  would have to be folded in value, which grouped queries do not allow.
  """

  spec: quantize.Spec

  def __call__(self, params: Mapping, statistics: Callable) -> dict:
    """Returns params of the same function with AWQ's scales."""
    structure, stats = transforms.rmsnorm_decoder(params), statistics()
    for norm, readers in structure.norms:
      if norm == structure_lib.FINAL_NORM:
        continue
      scale = self._search(params, readers, stats[readers[0]])
      params = transforms.fold_scale(params, structure, norm, scale)
    for up, down in structure.pairs:
      scale = self._search(params, (down,), stats[down])
      params = transforms.fold_pair(params, up, down, scale)
    return params

  def _search(self, params, paths, stats) -> jax.Array:
    kernels = (structure_lib.get(params, path) for path in paths)
    weights = tuple(jnp.swapaxes(w, -1, -2) for w in kernels)
    search = lambda w, s: solvers.search_scale(w, s, self.spec)[0]
    if weights[0].ndim == 3:
      search = jax.vmap(search)
    return search(weights, stats)
