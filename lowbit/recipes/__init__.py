"""One function a paper -> Recipe."""

from lowbit.recipes.training import (
  adapt_fixedpoint,
  dqa,
  eqnet,
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
  'eqnet',
  'floating',
  'gptq',
  'nearest',
  'pams',
  'pretraining',
  'qat',
  'quarot',
  'smoothquant',
]
