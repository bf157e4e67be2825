"""Dynamic fixed point: integer mantissas of a tensor and one shared exponent.

The mapping shifts the 24-bit significands of float32 to the exponent of the
largest, in integer arithmetic alone; products then run on int32. Ghaffari et
al., Is Integer Arithmetic Enough for Deep Learning Training?, 2022
(arXiv:2207.08822), as Integer Fine-tuning of Transformer-based Models, 2022
(arXiv:2209.09815), uses it.
"""

import dataclasses

import jax
import jax.numpy as jnp

from lowbit.quantize import qtensor

_NOT_FINITE = 2**20  # Exponent of a tensor that holds NaN or infinities.
_LIMB = 8  # Bits of the lower half of a wide mantissa.


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Fixed:
  """x = mantissa 2^exponent, |mantissa| at most 2^(bits-1) - 1."""

  mantissa: jax.Array  # int32, shape of x.
  exponent: jax.Array  # int32 [].
  bits: int = dataclasses.field(metadata={'static': True})

  @property
  def limit(self) -> int:
    """The largest magnitude of a mantissa."""
    return 2 ** (self.bits - 1) - 1


def to_fixed(x: jax.Array, bits: int, key: jax.Array | None = None) -> Fixed:
  """Maps a float tensor onto integers of `bits` bits.

  The step is 2^(e - bits + 2), e the exponent of the largest magnitude; twice
  that where the largest would round to 2^(bits-1), which keeps stochastic
  rounding unbiased and the integers symmetric.

  Args:
    x: Float array of any shape; taken as float32. With a NaN or an infinity in
      it, all of `to_float` is NaN.
    bits: Width with sign, 2 .. 16.
    key: PRNG key: rounds stochastically, unbiased to 2^-32 of a step. None
      rounds to nearest, ties away from zero.

  Returns:
    A `Fixed`.

  Raises:
    TypeError: If `x` is not floating point.
    ValueError: If `bits` is out of range.
  """
  qtensor.check_float(x)
  if not 2 <= bits <= 16:
    raise ValueError(
      f'`bits` must lie in 2..16, got {bits}. Wider mantissas have no int32 '
      'products.'
    )
  word = jax.lax.bitcast_convert_type(x.astype(jnp.float32), jnp.uint32)
  magnitude = word & jnp.uint32(0x7FFFFFFF)
  significand, field = _fields(magnitude)
  largest, top = _fields(jnp.max(magnitude, initial=0))
  drop = 25 - bits
  beyond = largest > jnp.uint32((2 ** (bits - 1) - 1) << drop)
  step = top + drop + beyond.astype(jnp.int32)
  rounded = _shift(significand, step - field, key).astype(jnp.int32)
  mantissa = jnp.where(word == magnitude, rounded, -rounded)
  # A significand counts 2^(field - 150).
  exponent = jnp.where(top == 255, _NOT_FINITE, step - 150)
  return Fixed(mantissa, exponent, bits)


def _fields(magnitude):
  """24-bit significand and exponent field (1 for subnormals and 0)."""
  field = (magnitude >> jnp.uint32(23)).astype(jnp.int32)
  fraction = magnitude & jnp.uint32(0x7FFFFF)
  hidden = jnp.where(field > 0, jnp.uint32(1 << 23), jnp.uint32(0))
  return fraction | hidden, jnp.maximum(field, 1)


def _shift(significand, shift, key):
  """round(significand / 2^shift), shift at least 9: uint32."""
  near = jnp.minimum(shift, 31).astype(jnp.uint32)
  one = jnp.uint32(1)
  if key is None:
    return (significand + (one << (near - one))) >> near
  noise = jax.random.bits(key, significand.shape, jnp.uint32)
  within = (significand + (noise >> (jnp.uint32(32) - near))) >> near
  far = jnp.clip(shift - 32, 0, 31).astype(jnp.uint32)
  beyond = (noise < (significand >> far)).astype(jnp.uint32)
  return jnp.where(shift < 32, within, beyond)


def scaled(whole: jax.Array, exponent: jax.Array) -> jax.Array:
  """whole 2^exponent as float32: the way back from integers.

  Args:
    whole: int32, any shape.
    exponent: int32 []; that of a product is the sum of its factors'.
  """
  half = exponent // 2
  y = whole.astype(jnp.float32) * _power(half) * _power(exponent - half)
  return jnp.where(exponent > _NOT_FINITE // 2, jnp.float32(jnp.nan), y)


def _power(exponent):
  field = jnp.clip(exponent, -126, 127) + 127
  return jax.lax.bitcast_convert_type(field << 23, jnp.float32)


def to_float(q: Fixed) -> jax.Array:
  """The tensor that the integers stand for, float32."""
  return scaled(q.mantissa, q.exponent)


def contract(a: Fixed, b: Fixed, dimension_numbers) -> jax.Array:
  """dot_general of integers, mapped back to float32.

  The sum is exact. Where int32 could overflow, mantissas are split in two
  halves of 8 bits, whose four sums cannot, and carries join them.

  Args:
    a: First factor.
    b: Second factor.
    dimension_numbers: As jax.lax.dot_general takes them.

  Returns:
    float32; the sum is rounded once, or twice beyond 1024 terms of split
    mantissas.

  Raises:
    ValueError: If 2^16 terms or more are summed with split mantissas.
  """
  axes = dimension_numbers[0][0]
  terms = 1
  for axis in axes:
    terms *= a.mantissa.shape[axis]
  exponent = a.exponent + b.exponent
  dot = lambda x, y: jax.lax.dot_general(
    x, y, dimension_numbers, preferred_element_type=jnp.int32
  )
  if terms * a.limit * b.limit < 2**31:
    return scaled(dot(a.mantissa, b.mantissa), exponent)
  if terms >= 2**16:
    raise ValueError(
      f'A product of {a.bits} and {b.bits} bits sums {terms} terms, and its '
      'int32 accumulators hold 65535. Use fewer bits, or split the sum.'
    )
  (a1, a0), (b1, b0) = _halves(a.mantissa), _halves(b.mantissa)
  high, middle, low = dot(a1, b1), dot(a1, b0) + dot(a0, b1), dot(a0, b0)
  middle = middle + (low >> _LIMB)
  high = high + (middle >> _LIMB)
  rest = ((middle & 255) << _LIMB) | (low & 255)
  return scaled(high, exponent + 2 * _LIMB) + scaled(rest, exponent)


def _halves(m):
  """m = 256 high + low, both in -128 .. 128."""
  low = ((m + 128) & 255) - 128
  return (m - low) >> _LIMB, low
