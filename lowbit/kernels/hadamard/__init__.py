"""Walsh-Hadamard transforms of activations, and their quantization."""

from lowbit.kernels.hadamard.api import hadamard, hadamard_quantize

__all__ = ['hadamard', 'hadamard_quantize']
