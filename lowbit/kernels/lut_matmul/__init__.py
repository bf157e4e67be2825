"""Products by table lookup instead of multiplication."""

from lowbit.kernels.lut_matmul.api import lut_matmul
from lowbit.kernels.lut_matmul.layout import LutWeight, lut_weight
from lowbit.kernels.lut_matmul.two_bit import lut_gemm_2bit

__all__ = ['LutWeight', 'lut_gemm_2bit', 'lut_matmul', 'lut_weight']
