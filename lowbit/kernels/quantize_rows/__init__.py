"""Activations quantized in one pass: scale, round, pack."""

from lowbit.kernels.quantize_rows.api import quantize_rows

__all__ = ['quantize_rows']
