"""Integer codes times integer codes, exact in int32, then the scales."""

from lowbit.kernels.int_matmul.api import int_matmul, quantized_matmul
from lowbit.kernels.int_matmul.parts import TwoStage, two_stage

__all__ = ['TwoStage', 'int_matmul', 'quantized_matmul', 'two_stage']
