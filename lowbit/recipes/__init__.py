"""One function a paper -> Recipe."""

from lowbit.recipes.training import (
  adapt_fixedpoint,
  dqa,
  edgeqat,
  eqnet,
  gaqat,
  pams,
  pretraining,
  qat,
)
from lowbit.recipes.weights import (
  awq,
  floating,
  gptq,
  nearest,
  quarot,
  smoothquant,
)

__all__ = [
  'adapt_fixedpoint',
  'awq',
  'dqa',
  'edgeqat',
  'eqnet',
  'floating',
  'gaqat',
  'gptq',
  'nearest',
  'pams',
  'pretraining',
  'qat',
  'quarot',
  'smoothquant',
]
