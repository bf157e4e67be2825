"""lowbit: low-precision numerics for JAX and Flax.

Importing it costs little more than importing jax: the names that need Flax or
optax load on first use. `lb.quantize`, `lb.intercept` and `lb.calibrate` are
packages that can be called (`packages.py`).
"""

import importlib

from lowbit import formats, operators, quantize, solvers, transforms
from lowbit.operators import conv, dot_general, einsum, matmul
from lowbit.operators.base import bits_per_weight
from lowbit.quantize import (
  PackedQTensor,
  QTensor,
  Spec,
  bits,
  clipped,
  dequantize,
  fake_quantize,
  pack,
  quantize_grid,
  straight_through,
  unpack,
)

_LAZY = {
  'apply': 'lowbit.calibrate',
  'compare': 'lowbit.experiment.compare',
  'init_quantizers': 'lowbit.calibrate',
  'nnx': 'lowbit.calibrate',
  'quantize_model': 'lowbit.calibrate',
  'Backward': 'lowbit.intercept',
  'Recipe': 'lowbit.intercept',
  'Rule': 'lowbit.intercept',
}
_LAZY_PACKAGES = (
  'calibrate',
  'data',
  'experiment',
  'intercept',
  'interop',
  'models',
  'optim',
  'recipes',
)

__all__ = [
  'PackedQTensor',
  'QTensor',
  'Spec',
  'bits',
  'bits_per_weight',
  'clipped',
  'conv',
  'dequantize',
  'dot_general',
  'einsum',
  'fake_quantize',
  'formats',
  'matmul',
  'operators',
  'pack',
  'quantize',
  'quantize_grid',
  'solvers',
  'straight_through',
  'transforms',
  'unpack',
]


def __getattr__(name: str):
  if name in _LAZY:
    return getattr(importlib.import_module(_LAZY[name]), name)
  if name in _LAZY_PACKAGES:
    return importlib.import_module(f'lowbit.{name}')
  raise AttributeError(f'lowbit has no attribute {name!r}.')


def __dir__():
  return sorted({*__all__, *_LAZY, *_LAZY_PACKAGES})
