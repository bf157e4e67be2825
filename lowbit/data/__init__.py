"""Embedded text, digits and weights, read by pure functions; no downloads."""

from lowbit.data import digits, embedded, files, text

__all__ = ['digits', 'embedded', 'files', 'text']
