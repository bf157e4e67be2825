"""(weight [out, in], statistics, spec) -> QTensor."""

from lowbit.solvers.adaptive_smoothing import search_range
from lowbit.solvers.aqas import search_joint_scale
from lowbit.solvers.awq import awq, output_error, search_clip, search_scale
from lowbit.solvers.choices import Gptq, Nearest, Solver, nearest
from lowbit.solvers.columns import gptq, inverse_factor
from lowbit.solvers.low_rank import low_rank
from lowbit.solvers.sign_descent import refine
from lowbit.solvers.statistics import Statistics, merge, observe, rotate

__all__ = [
  'Gptq',
  'Nearest',
  'Solver',
  'Statistics',
  'awq',
  'gptq',
  'inverse_factor',
  'low_rank',
  'merge',
  'nearest',
  'observe',
  'output_error',
  'refine',
  'rotate',
  'search_clip',
  'search_joint_scale',
  'search_range',
  'search_scale',
]
