"""Sensitivities and a budget -> one choice a layer."""

from lowbit.allocation.ilp import choose

__all__ = ['choose']
