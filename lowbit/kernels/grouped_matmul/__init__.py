"""Tokens times the low-bit weights of their experts."""

from lowbit.kernels.grouped_matmul.api import grouped_matmul

__all__ = ['grouped_matmul']
