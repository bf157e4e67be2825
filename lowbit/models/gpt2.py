"""A decoder as GPT-2: Radford et al., 2019.

Layer norms before each block, learned positions, GELU, biases.
Nothing here knows of quantization.
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import linen as nn

# Shapes: B batch, T time, D width, V vocab.


@dataclasses.dataclass(frozen=True)
class GPT2Config:
  """Sizes of a GPT-2; all static."""

  vocab: int = 50257
  width: int = 768
  layers: int = 12
  heads: int = 12
  hidden: int = 3072
  positions: int = 1024
  norm_eps: float = 1e-5
  tied: bool = True  # Head = transposed embedding.

  def __post_init__(self):
    for field in ('vocab', 'width', 'layers', 'heads', 'hidden', 'positions'):
      if getattr(self, field) < 1:
        raise ValueError(f'`{field}` must be positive, got {self}.')
    if self.width % self.heads:
      raise ValueError(f'`heads` must divide `width`, got {self}.')


class Layer(nn.Module):
  """Attention and a two-layer perceptron, each behind a norm."""

  config: GPT2Config

  @nn.compact
  def __call__(self, x):
    """Maps the residual stream x [B, T, D] to the next."""
    c = self.config
    norm = lambda name: nn.LayerNorm(epsilon=c.norm_eps, name=name)
    y = norm('attention_norm')(x)
    heads = lambda name: nn.Dense(c.width, name=name)(y).reshape(
      *y.shape[:2], c.heads, -1
    )
    q, k, v = (heads(name) for name in ('query', 'key', 'value'))
    scores = jnp.einsum('bthc,bshc->bhts', q, k) * q.shape[-1] ** -0.5
    seen = jnp.tril(jnp.ones(scores.shape[-2:], bool))[None, None]
    scores = jnp.where(seen, scores, jnp.finfo(jnp.float32).min)
    y = jnp.einsum('bhts,bshc->bthc', jax.nn.softmax(scores), v)
    x = x + nn.Dense(c.width, name='out')(y.reshape(x.shape))
    y = nn.Dense(c.hidden, name='up')(norm('mlp_norm')(x))
    return x + nn.Dense(c.width, name='down')(jax.nn.gelu(y))


class GPT2(nn.Module):
  """Tokens [B, T] int32 -> logits [B, T, V] float32 of the next token."""

  config: GPT2Config = GPT2Config()

  @nn.compact
  def __call__(self, tokens):
    """Returns the logits of the token after each position."""
    c = self.config
    if tokens.shape[1] > c.positions:
      raise ValueError(
        f'`tokens` {tokens.shape} are longer than the {c.positions} positions '
        'of the model. Cut the text.'
      )
    embed = nn.Embed(c.vocab, c.width, name='embed')
    table = nn.Embed(c.positions, c.width, name='positions')
    x = embed(tokens)
    places = table(jnp.arange(tokens.shape[1])[None])
    x = x + jnp.broadcast_to(places, x.shape)
    for i in range(c.layers):
      x = Layer(c, name=f'layers_{i}')(x)
    x = nn.LayerNorm(epsilon=c.norm_eps, name='final_norm')(x)
    if c.tied:
      return embed.attend(x)
    return nn.Dense(c.vocab, use_bias=False, name='head')(x)
