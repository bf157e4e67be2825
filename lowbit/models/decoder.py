"""A decoder language model as people build them today, in plain Linen.

RMSNorm before each block, rotary positions, grouped-query attention, SwiGLU;
with the options of Llama, Mistral, Qwen2, Qwen3 and SmolLM2. Nothing here knows
of quantization.
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import linen as nn

from lowbit.models import rotary

# Shapes: B batch, T time, D width, H heads, K kv heads, C head_dim, V vocab.


@dataclasses.dataclass(frozen=True)
class DecoderConfig:
  """Sizes of a decoder; all static."""

  vocab: int = 256  # Bytes.
  width: int = 256
  layers: int = 6
  heads: int = 4
  kv_heads: int = 2  # Each is shared by heads / kv_heads query heads.
  head_dim: int = 64
  hidden: int = 640  # Width of the SwiGLU.
  rope_base: float = 10_000.0
  rope_factors: tuple[float, ...] = ()  # Divide the head_dim / 2 frequencies.
  rope_scale: float = 1.0  # Multiplies turned queries and keys, as in YaRN.
  rope_dynamic: (
    tuple[float, int] | tuple[()]
  ) = ()  # Factor, context; see rotary.
  norm_eps: float = 1e-5
  qkv_bias: bool = False
  out_bias: bool = False  # Of attention.
  mlp_bias: bool = False
  qk_norm: bool = False  # RMSNorm of each head's queries and keys, as in Qwen3.
  window: int = 0  # A token sees itself and window - 1 before; 0: all.
  window_from: int = 0  # The first layer with a window.
  tied: bool = False  # Head = transposed embedding.
  scan_layers: bool = False  # One traced layer, stacked params.
  remat: bool = False
  dtype: str = 'float32'  # Of activations; logits are always float32.

  def __post_init__(self):
    # JSON has lists, and a config must be hashable.
    for field in ('rope_factors', 'rope_dynamic'):
      object.__setattr__(self, field, tuple(getattr(self, field)))
    for field in ('vocab', 'width', 'layers', 'heads', 'kv_heads', 'hidden'):
      if getattr(self, field) < 1:
        raise ValueError(f'`{field}` must be positive, got {self}.')
    if self.heads % self.kv_heads:
      raise ValueError(
        f'`heads` {self.heads} must be a multiple of `kv_heads` '
        f'{self.kv_heads}.'
      )
    if self.head_dim % 2:
      raise ValueError(
        f'`head_dim` must be even for rotary positions, got {self.head_dim}.'
      )
    if len(self.rope_factors) not in (0, self.head_dim // 2):
      raise ValueError(
        f'`rope_factors` must be {self.head_dim // 2} numbers, one for each '
        f'frequency, or none; got {len(self.rope_factors)}.'
      )
    if min(self.rope_scale, *self.rope_factors, 1) <= 0:
      raise ValueError(
        f'`rope_scale` {self.rope_scale} and `rope_factors` must be positive, '
        f'got {self.rope_factors}.'
      )
    self._check_dynamic()
    if self.window < 0 or self.window_from < 0:
      raise ValueError(
        f'`window` and `window_from` must not be negative, got {self.window} '
        f'and {self.window_from}.'
      )
    if self.window and self.window_from and self.scan_layers:
      raise ValueError(
        '`scan_layers` runs one layer over and over: `window_from` must be 0, '
        f'got {self.window_from}. Unroll the layers.'
      )

  def window_of(self, layer: int) -> int:
    """The window of a layer; 0: all tokens before."""
    return self.window if layer >= self.window_from else 0

  def _check_dynamic(self):
    if not self.rope_dynamic:
      return
    if len(self.rope_dynamic) != 2 or min(self.rope_dynamic) <= 0:
      raise ValueError(
        '`rope_dynamic` must be a positive factor and a context in tokens, got '
        f'{self.rope_dynamic}.'
      )
    if self.rope_dynamic[0] < 1 or self.head_dim < 4:
      raise ValueError(
        '`rope_dynamic` needs a factor of at least 1 and a `head_dim` of at '
        f'least 4, got {self.rope_dynamic} and {self.head_dim}.'
      )

  def rope_base_of(self, length: int) -> float:
    """The base of rotary positions for texts of so many tokens."""
    if not self.rope_dynamic:
      return self.rope_base
    return rotary.dynamic_base(
      self.rope_base, self.head_dim, length, *self.rope_dynamic
    )


class RMSNorm(nn.Module):
  """x / rms(x) * scale, computed in float32."""

  eps: float
  dtype: str

  @nn.compact
  def __call__(self, x):
    """Normalizes the last axis of x [..., D]."""
    scale = self.param('scale', nn.initializers.ones, (x.shape[-1],))
    x = x.astype(jnp.float32)
    mean_square = jnp.mean(x**2, axis=-1, keepdims=True)
    x = x * jax.lax.rsqrt(mean_square + self.eps)
    return jnp.einsum('...d,d->...d', x, scale).astype(self.dtype)


class Attention(nn.Module):
  """Causal grouped-query self-attention.

  With 'intermediates' mutable it sows 'queries' [B, T, K, H / K, C], 'keys' [B,
  T, K, C] and 'scores' [B, K, H / K, T, T], those before the mask.
  """

  config: DecoderConfig
  window: int = 0  # 0: all tokens before.

  @nn.compact
  def __call__(self, x):
    """Maps x [B, T, D] to [B, T, D]."""
    c = self.config
    dense = lambda name, n, bias: nn.Dense(
      n, use_bias=bias, dtype=c.dtype, name=name
    )
    project = lambda name, heads: dense(name, heads * c.head_dim, c.qkv_bias)(
      x
    ).reshape(*x.shape[:2], heads, c.head_dim)
    q, k = project('query', c.heads), project('key', c.kv_heads)
    v = project('value', c.kv_heads)
    if c.qk_norm:
      norm = lambda name: RMSNorm(c.norm_eps, c.dtype, name=name)
      q, k = norm('query_norm')(q), norm('key_norm')(k)
    base = c.rope_base_of(x.shape[1])
    turn = lambda y: rotary.rope(y, base, 0, c.rope_factors, c.rope_scale)
    q, k = turn(q), turn(k)
    q = q.reshape(*q.shape[:2], c.kv_heads, -1, c.head_dim)
    scores = jnp.einsum(
      'btkgc,bskc->bkgts', q, k, preferred_element_type=jnp.float32
    )
    scores = scores * c.head_dim**-0.5
    for name, value in (('queries', q), ('keys', k), ('scores', scores)):
      self.sow('intermediates', name, value)
    seen = jnp.tril(jnp.ones(scores.shape[-2:], bool))
    if self.window:
      seen = jnp.triu(seen, 1 - self.window)
    seen = seen[None, None, None]
    scores = jnp.where(seen, scores, jnp.finfo(jnp.float32).min)
    weights = jax.nn.softmax(scores, axis=-1).astype(c.dtype)
    y = jnp.einsum('bkgts,bskc->btkgc', weights, v)
    return dense('out', c.width, c.out_bias)(y.reshape(*y.shape[:2], -1))


class SwiGLU(nn.Module):
  """down(silu(gate(x)) * up(x))."""

  config: DecoderConfig

  @nn.compact
  def __call__(self, x):
    """Maps x [B, T, D] to [B, T, D]."""
    c = self.config
    dense = lambda name, n: nn.Dense(
      n, use_bias=c.mlp_bias, dtype=c.dtype, name=name
    )
    hidden = jax.nn.silu(dense('gate', c.hidden)(x)) * dense('up', c.hidden)(x)
    return dense('down', c.width)(hidden)


class Layer(nn.Module):
  """Attention and SwiGLU, each behind a norm and around a residual."""

  config: DecoderConfig
  window: int = 0

  @nn.compact
  def __call__(self, x):
    """Maps the residual stream x [B, T, D] to the next."""
    c = self.config
    norm = lambda name: RMSNorm(c.norm_eps, c.dtype, name=name)
    attention = Attention(c, self.window, name='attention')
    x = x + attention(norm('attention_norm')(x))
    return x + SwiGLU(c, name='mlp')(norm('mlp_norm')(x))


class Decoder(nn.Module):
  """Tokens [B, T] int32 -> logits [B, T, V] float32 of the next token."""

  config: DecoderConfig = DecoderConfig()

  @nn.compact
  def __call__(self, tokens):
    """Returns the logits of the token after each position."""
    c = self.config
    embed = nn.Embed(c.vocab, c.width, dtype=c.dtype, name='embed')
    x = embed(tokens)
    layer = nn.remat(Layer) if c.remat else Layer
    if c.scan_layers:
      body = lambda module, x: (module(x), None)
      stack = layer(c, c.window, name='layers')
      x, _ = nn.scan(
        body,
        variable_axes={True: 0},
        split_rngs={'params': True},
        length=c.layers,
      )(stack, x)
    else:
      for i in range(c.layers):
        x = layer(c, c.window_of(i), name=f'layers_{i}')(x)
    return head(c, x, embed)


def head(c: DecoderConfig, x: jax.Array, embed: nn.Embed | None) -> jax.Array:
  """Logits of the residual stream x [B, T, D]; inside of a compact module."""
  x = RMSNorm(c.norm_eps, c.dtype, name='final_norm')(x)
  if c.tied:
    logits = embed.attend(x)
  else:
    logits = nn.Dense(c.vocab, use_bias=False, dtype=c.dtype, name='head')(x)
  return logits.astype(jnp.float32)


def stack(params: dict) -> dict:
  """layers_0, layers_1, ... -> layers, with a leading axis for the layer."""
  names = sorted(
    (k for k in params if k.startswith('layers_')), key=lambda k: int(k[7:])
  )
  if not names:
    raise ValueError(f'`params` has no layers_0 to stack, only {list(params)}.')
  rest = {k: v for k, v in params.items() if k not in names}
  layers = [params[k] for k in names]
  return rest | {'layers': jax.tree.map(lambda *x: jnp.stack(x), *layers)}


def unstack(params: dict) -> dict:
  """The inverse of `stack`."""
  if 'layers' not in params:
    raise ValueError(f'`params` has no layers to unstack, only {list(params)}.')
  rest = {k: v for k, v in params.items() if k != 'layers'}
  count = jax.tree.leaves(params['layers'])[0].shape[0]
  pick = lambda i: jax.tree.map(lambda x: x[i], params['layers'])
  return rest | {f'layers_{i}': pick(i) for i in range(count)}
