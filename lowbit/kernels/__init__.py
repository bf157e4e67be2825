"""Matmuls on packed weights: Pallas kernels for TPU and GPU, XLA elsewhere."""

from lowbit.kernels.dequant_matmul import dequant_matmul
from lowbit.kernels.operands import shape

__all__ = ['dequant_matmul', 'shape']
