"""One function a paper -> Recipe."""

from lowbit.recipes.training import dqa, eqnet, pams, pretraining, qat
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
