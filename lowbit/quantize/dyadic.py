"""Dyadic scales: requantization in integers alone.

A ratio of scales S becomes m 2^-e with a 31-bit m, so that an int32
accumulator is rescaled by one product and one shift. Yao et al., HAWQV3, 2020
(arXiv:2011.10680); m and e as in the released code.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Dyadic(NamedTuple):
  """ratio = multiplier 2^-shift."""

  multiplier: jax.Array  # int32, in [2^30, 2^31); 0 for ratio 0.
  shift: jax.Array  # int32, in [1, 62].


def dyadic(ratio) -> Dyadic:
  """The dyadic number next to each ratio.

  Args:
    ratio: Positive float scales of any shape, in [2^-31, 2^30); host data, as
      integer-only inference fixes its scales when it is built. Taken as
      float64.

  Raises:
    ValueError: If a ratio is not finite, negative, or out of range.
  """
  ratio = np.asarray(ratio, np.float64)
  mantissa, exponent = np.frexp(ratio)
  multiplier = np.floor(mantissa * 2.0**31 + 0.5)
  carry = multiplier == 2.0**31
  multiplier = np.where(carry, 2.0**30, multiplier)
  shift = np.where(ratio == 0, 1, 31 - exponent - carry)
  if (
    not np.isfinite(ratio).all()
    or (ratio < 0).any()
    or ((shift < 1) | (shift > 62))[ratio != 0].any()
  ):
    raise ValueError(
      '`ratio` must be finite, and 0 or in [2^-31, 2^30); got '
      f'{ratio.min()} to {ratio.max()}. Rescale the tensors first.'
    )
  return Dyadic(
    jnp.asarray(multiplier.astype(np.int32)), jnp.asarray(shift, jnp.int32)
  )


@jax.jit
def requantize(accumulator: jax.Array, scale: Dyadic) -> jax.Array:
  """round(accumulator m / 2^e) in integers, ties away from zero.

  The product has 62 bits and is held in two uint32 words, so that nothing
  needs 64-bit integers.

  Args:
    accumulator: int32 of any shape, above -2^31.
    scale: Broadcasts against it.

  Returns:
    int32, saturated to +-(2^31 - 1).

  Raises:
    TypeError: If `accumulator` is not int32.
  """
  if accumulator.dtype != jnp.int32:
    raise TypeError(
      f'`accumulator` must be int32, got {accumulator.dtype}. Integer products '
      'give it with preferred_element_type=jnp.int32.'
    )
  multiplier, shift = (
    jnp.broadcast_to(a, accumulator.shape).view(jnp.uint32) for a in scale
  )
  high, low = _product(jnp.abs(accumulator).view(jnp.uint32), multiplier)
  magnitude = _shift_round(high, low, shift)
  return jnp.where(accumulator < 0, -magnitude, magnitude)


def _product(a, b):
  """The 64-bit product of uint32 arrays, as two words."""
  mask, half = jnp.uint32(0xFFFF), jnp.uint32(16)
  a1, a0, b1, b0 = a >> half, a & mask, b >> half, b & mask
  low, cross, other = a0 * b0, a0 * b1, a1 * b0
  middle = (low >> half) + (cross & mask) + (other & mask)
  high = a1 * b1 + (cross >> half) + (other >> half) + (middle >> half)
  return high, (middle << half) | (low & mask)


def _shift_round(high, low, shift):
  """(high 2^32 + low) 2^-shift, rounded half up; int32, saturated."""
  one, word = jnp.uint32(1), jnp.uint32(32)
  # Add half of the last place that is kept.
  place = shift - one
  add_low = jnp.where(place < word, one << (place % word), jnp.uint32(0))
  add_high = jnp.where(place < word, jnp.uint32(0), one << (place % word))
  total = low + add_low
  high = high + add_high + (total < low).astype(jnp.uint32)
  near = shift % word
  merged = (total >> near) | jnp.where(
    near == 0, jnp.uint32(0), high << ((word - near) % word)
  )
  kept = jnp.where(shift < word, merged, high >> near)
  lost = jnp.where(shift < word, high >> near, jnp.uint32(0))
  limit = jnp.uint32(2**31 - 1)
  saturated = jnp.where((lost > 0) | (kept > limit), limit, kept)
  return saturated.astype(jnp.int32)
