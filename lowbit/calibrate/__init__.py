"""Batches -> statistics, and params -> params with operator leaves."""

from lowbit.calibrate.model import (
  apply,
  calibrate,
  quantize_model,
  quantize_weight,
)

__all__ = ['apply', 'calibrate', 'quantize_model', 'quantize_weight']
