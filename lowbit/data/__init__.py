"""Embedded text and weights, read with small pure functions; no downloads."""

from lowbit.data import embedded, text

__all__ = ['embedded', 'text']
