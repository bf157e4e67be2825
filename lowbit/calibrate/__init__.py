"""Batches -> statistics, and params -> params with operator leaves."""

from lowbit import packages
from lowbit.calibrate import nnx
from lowbit.calibrate.model import (
  apply,
  calibrate,
  init_quantizers,
  matched,
  prepare,
  quantize_model,
)
from lowbit.calibrate.one_weight import quantize_weight

__all__ = [
  'apply',
  'calibrate',
  'init_quantizers',
  'matched',
  'nnx',
  'prepare',
  'quantize_model',
  'quantize_weight',
]

packages.make_callable(__name__, calibrate)
