"""Small Linen models that know nothing of quantization."""

from lowbit.models import decoder, loss

__all__ = ['decoder', 'loss']
