"""Small Linen models, unaware of quantization."""

from lowbit.models import (
  classifiers,
  decoder,
  dequantizer,
  distillation,
  encoder,
  gpt2,
  loss,
  rotary,
  super_resolution,
  vit,
)

__all__ = [
  'classifiers',
  'decoder',
  'dequantizer',
  'distillation',
  'encoder',
  'gpt2',
  'loss',
  'rotary',
  'super_resolution',
  'vit',
]
