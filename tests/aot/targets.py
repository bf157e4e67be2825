"""The machines to compile for, as the tests name them."""

from lowbit.experiment.targets import (
  GPUS,
  NAMED,
  TPUS,
  Target,
  compile,
  size,
)

__all__ = ['GPUS', 'NAMED', 'TPUS', 'Target', 'compile', 'size']
