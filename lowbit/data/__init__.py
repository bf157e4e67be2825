"""Embedded text and weights, read with small pure functions; no downloads."""

from lowbit.data import embedded, files, text

__all__ = ['embedded', 'files', 'text']
