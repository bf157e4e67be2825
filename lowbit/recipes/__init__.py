"""One function a paper -> Recipe."""

from lowbit.recipes.training import dqa, pams, pretraining, qat
from lowbit.recipes.weights import (
  awq,
  floating,
  gptq,
  nearest,
  quarot,
  smoothquant,
)

__all__ = [
  'awq',
  'dqa',
  'floating',
  'gptq',
  'nearest',
  'pams',
  'pretraining',
  'qat',
  'quarot',
  'smoothquant',
]
