"""How recipes reach Flax models, by public interception alone."""

from lowbit import packages
from lowbit.intercept.backward import Backward
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
)
from lowbit.intercept.rules import Recipe, Rule
from lowbit.intercept.training import (
  DELAYED,
  QUANTIZERS,
  STREAM,
  initialize,
  simulate,
)

__all__ = [
  'DELAYED',
  'QUANTIZERS',
  'STATISTICS',
  'STREAM',
  'Backward',
  'Call',
  'Matmul',
  'Recipe',
  'Rule',
  'handling',
  'initialize',
  'intercept',
  'matmul',
  'matmuls',
  'record',
  'rows',
  'serve',
  'simulate',
]

packages.make_callable(__name__, intercept)
