"""Codebooks that are fitted to the data."""

from lowbit.codebooks.kmeans import weighted_kmeans
from lowbit.codebooks.nested import Nested, nest

__all__ = ['Nested', 'nest', 'weighted_kmeans']
