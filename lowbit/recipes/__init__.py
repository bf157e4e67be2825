"""One function a paper -> Recipe."""

from lowbit.recipes.training import pretraining, qat
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
  'floating',
  'gptq',
  'nearest',
  'pretraining',
  'qat',
  'quarot',
  'smoothquant',
]
