"""Exact rewrites of a layer or a model, which make it easier to quantize."""

from lowbit.transforms.bias import (
  absorb_high_bias,
  bias_correction,
  relu_mean,
)
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
from lowbit.transforms.permutation import key_order, permute_heads
from lowbit.transforms.power_factors import power_factors, round_with_factors
from lowbit.transforms.pre_shift import apply_shift, pre_shift
from lowbit.transforms.smoothing import smooth, smooth_scale
from lowbit.transforms.structure import Structure, rmsnorm_decoder, untie

__all__ = [
  'Hadamard',
  'Structure',
  'absorb_high_bias',
  'apply_hadamard',
  'apply_shift',
  'bias_correction',
  'equalize',
  'fold_norms',
  'fold_pair',
  'fold_scale',
  'hadamard_matrix',
  'key_order',
  'largest_block',
  'permute_heads',
  'power_factors',
  'pre_shift',
  'relu_mean',
  'rmsnorm_decoder',
  'rotate_residual',
  'round_with_factors',
  'scale_columns',
  'scale_rows',
  'smooth',
  'smooth_scale',
  'untie',
]
