"""A vision transformer: Dosovitskiy et al., 2020 (arXiv:2010.11929).

A token for the class before those of the patches, learned positions, layer
norms before each block. Nothing here knows of quantization. The smaller
`classifiers.ViT` has no class token, and takes any size of image.
"""

import dataclasses

import jax.numpy as jnp
from flax import linen as nn

from lowbit.models import classifiers


@dataclasses.dataclass(frozen=True)
class ViTConfig:
  """Sizes of a vision transformer; all static."""

  image: tuple[int, int] = (224, 224)  # Height and width, in pixels.
  patch: tuple[int, int] = (16, 16)
  channels: int = 3
  width: int = 768
  layers: int = 12
  heads: int = 12
  hidden: int = 3072
  classes: int = 1000  # 0: no head.
  norm_eps: float = 1e-12
  qkv_bias: bool = True

  def __post_init__(self):
    for field in ('image', 'patch'):  # JSON has lists.
      object.__setattr__(self, field, tuple(getattr(self, field)))
      if len(getattr(self, field)) != 2:
        raise ValueError(f'`{field}` must be height and width, got {self}.')
    sizes = (self.channels, self.width, self.layers, self.heads, self.hidden)
    if min(*sizes, *self.patch) < 1 or self.classes < 0:
      raise ValueError(f'Sizes must be positive, got {self}.')
    if self.width % self.heads:
      raise ValueError(f'`heads` must divide `width`, got {self}.')
    if min(self.grid) < 1:
      raise ValueError(f'`image` must hold at least one `patch`, got {self}.')

  @property
  def grid(self) -> tuple[int, int]:
    """Rows and columns of patches; pixels beyond the last are left out."""
    return self.image[0] // self.patch[0], self.image[1] // self.patch[1]


class ViT(nn.Module):
  """Images [B, height, width, channels] float32 -> logits [B, classes].

  With `classes` 0, it gives the states [B, 1 + patches, width] behind the last
  norm, that of the class first.
  """

  config: ViTConfig = ViTConfig()

  @nn.compact
  def __call__(self, images):
    """Returns the logits, or the states."""
    c = self.config
    if images.ndim != 4 or images.shape[1:] != (*c.image, c.channels):
      raise ValueError(
        f'`images` must be [B, {c.image[0]}, {c.image[1]}, {c.channels}], got '
        f'{images.shape}. Resize them, channels last.'
      )
    x = nn.Conv(
      c.width, c.patch, strides=c.patch, padding='VALID', name='patches'
    )(images)
    x = x.reshape(x.shape[0], -1, c.width)
    init = nn.initializers.normal(0.02)
    first = self.param('class_token', init, (1, 1, c.width))
    x = jnp.concatenate([jnp.tile(first, (x.shape[0], 1, 1)), x], axis=1)
    x = x + self.param('positions', init, (1, *x.shape[1:]))
    for i in range(c.layers):
      x = classifiers.Block(
        width=c.width,
        heads=c.heads,
        hidden=c.hidden,
        norm_eps=c.norm_eps,
        qkv_bias=c.qkv_bias,
        approximate=False,
        name=f'layers_{i}',
      )(x)
    x = nn.LayerNorm(epsilon=c.norm_eps, name='final_norm')(x)
    return nn.Dense(c.classes, name='head')(x[:, 0]) if c.classes else x
