"""Exact rewrites of a layer or a model, which make it easier to quantize."""

from lowbit.transforms.equalization import equalize
from lowbit.transforms.fusion import (
  fold_norms,
  fold_pair,
  fold_scale,
  rotate_residual,
  scale_columns,
  scale_rows,
)
from lowbit.transforms.hadamard import (
  Hadamard,
  apply_hadamard,
  hadamard_matrix,
  largest_block,
)
from lowbit.transforms.smoothing import smooth, smooth_scale
from lowbit.transforms.structure import Structure, rmsnorm_decoder, untie

__all__ = [
  'Hadamard',
  'Structure',
  'apply_hadamard',
  'equalize',
  'fold_norms',
  'fold_pair',
  'fold_scale',
  'hadamard_matrix',
  'largest_block',
  'rmsnorm_decoder',
  'rotate_residual',
  'scale_columns',
  'scale_rows',
  'smooth',
  'smooth_scale',
  'untie',
]
