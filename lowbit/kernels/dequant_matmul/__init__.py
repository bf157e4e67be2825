"""x W for weights of 1 to 8 bits and float activations."""

from lowbit.kernels.dequant_matmul.api import dequant_matmul, explain

__all__ = ['dequant_matmul', 'explain']
