"""Small Linen models that know nothing of quantization."""

from lowbit.models import (
  classifiers,
  decoder,
  dequantizer,
  distillation,
  loss,
  super_resolution,
)

__all__ = [
  'classifiers',
  'decoder',
  'dequantizer',
  'distillation',
  'loss',
  'super_resolution',
]
