"""Small image classifiers in plain Linen: MLP, CNN, ViT.

Nothing here knows of quantization. Each maps images [B, height, width,
channels], float32, to logits [B, classes].
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn


class MLP(nn.Module):
  """Dense layers with ReLU between them."""

  hidden: Sequence[int] = (64, 64)
  classes: int = 10

  @nn.compact
  def __call__(self, images):
    """Returns the logits."""
    x = images.reshape(images.shape[0], -1)
    for i, width in enumerate(self.hidden):
      x = jax.nn.relu(nn.Dense(width, name=f'dense_{i}')(x))
    return nn.Dense(self.classes, name='head')(x)


class CNN(nn.Module):
  """3 x 3 convolutions with ReLU, pooled by 2 after each but the first."""

  channels: Sequence[int] = (16, 32, 32)
  classes: int = 10

  @nn.compact
  def __call__(self, images):
    """Returns the logits."""
    x = images
    for i, width in enumerate(self.channels):
      x = jax.nn.relu(nn.Conv(width, (3, 3), name=f'conv_{i}')(x))
      if i:
        x = _pool(x)
    x = x.reshape(x.shape[0], -1)
    return nn.Dense(self.classes, name='head')(x)


def _pool(x):
  """Means of 2 x 2 pixels; an odd row or column at the end is left out."""
  b, h, w, c = x.shape
  x = x[:, : h // 2 * 2, : w // 2 * 2]
  return jnp.mean(x.reshape(b, h // 2, 2, w // 2, 2, c), axis=(2, 4))


class Block(nn.Module):
  """A pre-norm transformer layer without a causal mask."""

  width: int
  heads: int
  hidden: int
  norm_eps: float = 1e-6
  qkv_bias: bool = True
  approximate: bool = True  # GELU by tanh; else by erf.

  @nn.compact
  def __call__(self, x):
    """Maps x [B, T, width] to the same shape."""
    dense = lambda n, name, bias=True: nn.Dense(n, use_bias=bias, name=name)
    norm = lambda name: nn.LayerNorm(epsilon=self.norm_eps, name=name)
    y = norm('attention_norm')(x)
    heads = lambda name: dense(self.width, name, self.qkv_bias)(y).reshape(
      *y.shape[:2], self.heads, -1
    )
    q, k, v = (heads(name) for name in ('query', 'key', 'value'))
    scores = jnp.einsum('bthc,bshc->bhts', q, k) * q.shape[-1] ** -0.5
    y = jnp.einsum('bhts,bshc->bthc', jax.nn.softmax(scores), v)
    x = x + dense(self.width, 'out')(y.reshape(x.shape))
    y = dense(self.hidden, 'up')(norm('mlp_norm')(x))
    y = jax.nn.gelu(y, self.approximate)
    return x + dense(self.width, 'down')(y)


class ViT(nn.Module):
  """Patches, learned positions, transformer layers, mean pooling."""

  patch: int = 2
  width: int = 32
  layers: int = 2
  heads: int = 2
  hidden: int = 64
  classes: int = 10

  @nn.compact
  def __call__(self, images):
    """Returns the logits."""
    size = (self.patch, self.patch)
    x = nn.Conv(self.width, size, strides=size, name='patches')(images)
    x = x.reshape(x.shape[0], -1, self.width)
    init = nn.initializers.normal(0.02)
    places = self.param('positions', init, x.shape[1:])
    x = x + places[None]
    for i in range(self.layers):
      x = Block(self.width, self.heads, self.hidden, name=f'layers_{i}')(x)
    x = nn.LayerNorm(name='final_norm')(x)
    return nn.Dense(self.classes, name='head')(jnp.mean(x, axis=1))
