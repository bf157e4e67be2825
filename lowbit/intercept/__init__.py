"""How recipes reach Flax models, by public interception alone."""

from lowbit import packages
from lowbit.intercept.coverage import Matmul, matmuls
from lowbit.intercept.linen import (
  STATISTICS,
  Call,
  handling,
  intercept,
  matmul,
  record,
  rows,
  serve,
  simulate,
)
from lowbit.intercept.rules import Recipe, Rule

__all__ = [
  'STATISTICS',
  'Call',
  'Matmul',
  'Recipe',
  'Rule',
  'handling',
  'intercept',
  'matmul',
  'matmuls',
  'record',
  'rows',
  'serve',
  'simulate',
]

packages.make_callable(__name__, intercept)
