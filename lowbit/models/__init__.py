"""Small Linen models that know nothing of quantization."""

from lowbit.models import classifiers, decoder, loss, super_resolution

__all__ = ['classifiers', 'decoder', 'loss', 'super_resolution']
