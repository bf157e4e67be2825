"""Ternary weights times int8 activations, without loss (BitNet b1.58)."""

from lowbit.kernels.ternary_matmul.api import absmean, ternary_matmul
from lowbit.kernels.ternary_matmul.tables import (
  TablePacked,
  table_matmul,
  table_pack,
)

__all__ = [
  'TablePacked',
  'absmean',
  'table_matmul',
  'table_pack',
  'ternary_matmul',
]
