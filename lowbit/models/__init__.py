"""Small Linen models that know nothing of quantization."""

from lowbit.models import (
  classifiers,
  decoder,
  encoder,
  gpt2,
  loss,
  rotary,
  super_resolution,
)

__all__ = [
  'classifiers',
  'decoder',
  'encoder',
  'gpt2',
  'loss',
  'rotary',
  'super_resolution',
]
