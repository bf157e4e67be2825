"""An encoder of text, as BERT: Devlin et al., 2018 (arXiv:1810.04805).

Layer norms behind each residual, learned positions, erf GELU. Nothing here
knows of quantization.
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import linen as nn

# Shapes: B batch, T time, D width.


@dataclasses.dataclass(frozen=True)
class EncoderConfig:
  """Sizes of an encoder; all static."""

  vocab: int = 30522
  width: int = 384
  layers: int = 6
  heads: int = 12
  hidden: int = 1536
  positions: int = 512
  types: int = 2  # Segments of the input.
  norm_eps: float = 1e-12

  def __post_init__(self):
    for field in ('vocab', 'width', 'layers', 'heads', 'hidden', 'positions'):
      if getattr(self, field) < 1:
        raise ValueError(f'`{field}` must be positive, got {self}.')
    if self.types < 1 or self.width % self.heads:
      raise ValueError(
        f'`types` must be positive and `heads` divide `width`, got {self}.'
      )


class Layer(nn.Module):
  """Attention and a two-layer perceptron, a norm behind each."""

  config: EncoderConfig

  @nn.compact
  def __call__(self, x, mask):
    """Maps x [B, T, D] to the next, for mask bool [B, T]."""
    c = self.config
    norm = lambda name: nn.LayerNorm(epsilon=c.norm_eps, name=name)
    heads = lambda name: nn.Dense(c.width, name=name)(x).reshape(
      *x.shape[:2], c.heads, -1
    )
    q, k, v = (heads(name) for name in ('query', 'key', 'value'))
    scores = jnp.einsum('bthc,bshc->bhts', q, k) * q.shape[-1] ** -0.5
    lowest = jnp.finfo(jnp.float32).min
    scores = jnp.where(mask[:, None, None], scores, lowest)
    y = jnp.einsum('bhts,bshc->bthc', jax.nn.softmax(scores), v)
    y = nn.Dense(c.width, name='out')(y.reshape(x.shape))
    x = norm('attention_norm')(x + y)
    y = nn.Dense(c.hidden, name='up')(x)
    y = nn.Dense(c.width, name='down')(jax.nn.gelu(y, approximate=False))
    return norm('mlp_norm')(x + y)


class Encoder(nn.Module):
  """Tokens [B, T] int32 -> their states [B, T, D] float32."""

  config: EncoderConfig = EncoderConfig()

  @nn.compact
  def __call__(self, tokens, mask=None, types=None):
    """Returns the last layer's states.

    Args:
      tokens: int32 [B, T], of at most `positions`.
      mask: bool [B, T], which tokens are there; None for all.
      types: int32 [B, T], segments; None for the first.
    """
    c = self.config
    if tokens.shape[1] > c.positions:
      raise ValueError(
        f'`tokens` {tokens.shape} are longer than the {c.positions} positions '
        'of the encoder. Cut the text.'
      )
    mask = jnp.ones(tokens.shape, bool) if mask is None else mask
    types = jnp.zeros_like(tokens) if types is None else types
    table = lambda size, name: nn.Embed(size, c.width, name=name)
    places = jnp.arange(tokens.shape[1])[None]
    x = table(c.vocab, 'embed')(tokens) + table(c.types, 'types')(types)
    x = x + jnp.broadcast_to(table(c.positions, 'positions')(places), x.shape)
    x = nn.LayerNorm(epsilon=c.norm_eps, name='embed_norm')(x)
    for i in range(c.layers):
      x = Layer(c, name=f'layers_{i}')(x, mask)
    return x


def mean_pool(states: jax.Array, mask: jax.Array) -> jax.Array:
  """Unit vectors [B, D]: the mean state [B, T, D] where mask [B, T] is true.

  The sentence embedding of Reimers and Gurevych, 2019 (arXiv:1908.10084).
  """
  weights = mask.astype(jnp.float32)[..., None]
  total = jnp.einsum('btd,bto->bd', states, weights)
  return total / jnp.linalg.norm(total, axis=-1, keepdims=True)
