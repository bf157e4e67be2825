"""Fixed point whose word and fraction are data: one program for all words."""

import dataclasses

import jax
import jax.numpy as jnp

from lowbit import formats
from lowbit.quantize import estimators, noise, qtensor, scales


def round_fixed(
  x: jax.Array, word: jax.Array, fraction: jax.Array, key=None
) -> jax.Array:
  """clip(round(x 2^fraction), -2^(word-1), 2^(word-1) - 1) 2^-fraction.

  It is `formats.FixedPoint(word, fraction)` with traced lengths, and words of
  up to 32 bits; beyond 25 bits float32 rounds the highest value up.

  Args:
    x: Float array.
    word: Bits, sign included: number [], taken to be whole.
    fraction: Bits behind the point: number [].
    key: PRNG key: rounds stochastically. None rounds to nearest, ties to even.

  Returns:
    An array like `x`.

  Raises:
    TypeError: If `x` is not floating point.
  """
  qtensor.check_float(x)
  whole = lambda n: jnp.rint(jnp.asarray(n, jnp.float32)).astype(jnp.int32)
  power = lambda n: scales.exp2(whole(n))
  half = power(word - 1)
  v = x.astype(jnp.float32) * power(fraction)
  if key is None:
    v = jnp.round(v)
  else:
    low = jnp.floor(v)
    up = noise.uniform(key, v.shape) < v - low
    v = low + up.astype(jnp.float32)
  return (jnp.clip(v, -half, half - 1) * power(-fraction)).astype(x.dtype)


@dataclasses.dataclass(frozen=True)
class TracedFixed:
  """A rule takes it like a learned quantizer.

  Its parameters 'word' and 'fraction', float32 [], are set and not trained:
  their gradients are zero, that of `x` is 1. Rounding is stochastic, which
  takes a key; AdaPT (arXiv:2107.13490) found nearest to stall.

  Attributes:
    word: The first word length, 2 .. 32 bits.
    fraction: The first fraction length.
    stochastic: False rounds to nearest.
  """

  word: int = 8
  fraction: int = 4
  stochastic: bool = True

  def __post_init__(self):
    formats.base.check_whole(word=self.word, fraction=self.fraction)
    if not 2 <= self.word <= 32 or abs(self.fraction) > 60:
      raise ValueError(
        'Fixed point has a word of 2..32 bits and -60..60 bits behind the '
        f'point; got <{self.word}, {self.fraction}>.'
      )

  def init(self, x, axis=-1) -> dict[str, jax.Array]:
    """{'word', 'fraction'}: the first ones."""
    del x, axis
    return {
      'word': jnp.float32(self.word),
      'fraction': jnp.float32(self.fraction),
    }

  def __call__(self, x, params, axis=-1, key=None):
    """The quantized `x`; `key` where `stochastic`."""
    del axis
    if self.stochastic != (key is not None):
      raise ValueError(
        f'`key` goes with stochastic rounding, and only with it; got '
        f'stochastic={self.stochastic} and key={key}.'
      )
    lengths = jax.lax.stop_gradient((params['word'], params['fraction']))
    q = round_fixed(jax.lax.stop_gradient(x), *lengths, key)
    return estimators.straight_through(x, q, None)
