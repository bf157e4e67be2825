"""A small residual super-resolution net in plain Linen, after EDSR.

No normalization, as in Lim et al., 2017 (arXiv:1707.02921): activations are
wide, and differ from layer to layer.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn


class SuperResolution(nn.Module):
  """Images [B, h, w, C] -> [B, h scale, w scale, C], float32."""

  channels: int = 16
  blocks: int = 4
  scale: int = 2

  @nn.compact
  def __call__(self, images):
    """Returns the larger images."""
    conv = lambda n, name: nn.Conv(n, (3, 3), name=name)
    x = head = conv(self.channels, 'head')(images)
    for i in range(self.blocks):
      y = jax.nn.relu(conv(self.channels, f'body_{i}_a')(x))
      x = x + conv(self.channels, f'body_{i}_b')(y)
    x = head + x
    colours = images.shape[-1]
    x = conv(colours * self.scale**2, 'tail')(x)
    return _shuffle(x, self.scale)


def _shuffle(x, scale: int):
  """Moves channels into space: [B, h, w, C s s] -> [B, h s, w s, C]."""
  b, h, w, c = x.shape
  x = x.reshape(b, h, w, scale, scale, c // scale**2)
  x = jnp.transpose(x, (0, 1, 3, 2, 4, 5))
  return x.reshape(b, h * scale, w * scale, -1)
