"""Activations whose tokens have two widths, by their importance.

Shen et al., EdgeQAT, 2024 (arXiv:2402.10787): tokens that attend least to the
first token get the lower width.
"""

import dataclasses

import jax
import jax.numpy as jnp

from lowbit.quantize import estimators
from lowbit.quantize import spec as spec_lib


def first_token_attention(scores: jax.Array) -> jax.Array:
  """Importance of tokens: attention scores to the first, summed over heads.

  Args:
    scores: Before the softmax, [B, heads, T, S].

  Returns:
    float32 [B, T]. (The released code takes the mean over B as well.)
  """
  return jnp.sum(scores[..., 0].astype(jnp.float32), axis=1)


def least(importance: jax.Array, share: float = 0.5) -> jax.Array:
  """1 for the `share` of tokens of least importance in each row, else 0.

  Args:
    importance: [..., T].
    share: In [0, 1]; int(share T) tokens, the earlier ones on ties.

  Returns:
    float32 [..., T].

  Raises:
    ValueError: If `share` is out of range.
  """
  if not 0 <= share <= 1:
    raise ValueError(f'`share` must lie in [0, 1], got {share}.')
  rank = jnp.argsort(jnp.argsort(importance, axis=-1), axis=-1)
  count = int(share * importance.shape[-1])
  return (rank < count).astype(jnp.float32)


@dataclasses.dataclass(frozen=True)
class TokenBits:
  """A rule takes it like a learned quantizer of activations.

  Its parameter 'low', float32 with the shape of the tokens, is 1 where the
  lower width holds; it is set, not trained, and starts at 0.

  Attributes:
    high: Spec or name of the important tokens, with a scale a token.
    low: Of the others.
  """

  high: spec_lib.Spec | str = 'int8@token'
  low: spec_lib.Spec | str = 'int4@token'

  def __post_init__(self):
    for name in ('high', 'low'):
      spec = spec_lib.Spec.parse(getattr(self, name))
      object.__setattr__(self, name, spec)
      if spec.block == 'tensor':
        raise ValueError(
          f'`{name}` is {spec}, whose one scale would mix tokens of both '
          'widths. Use @token.'
        )

  def init(self, x, axis=-1) -> dict[str, jax.Array]:
    """{'low': float32}, zeros [..., T] for x [..., T, D]."""
    del axis
    return {'low': jnp.zeros(x.shape[:-1], jnp.float32)}

  def __call__(self, x, params, axis=-1):
    """The quantized `x`."""
    low = estimators.fake_quantize(x, self.low, axis)
    high = estimators.fake_quantize(x, self.high, axis)
    return jnp.where(params['low'][..., None] > 0, low, high)
