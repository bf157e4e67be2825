"""Rounding to a float grid whose numbers may be traced.

One compiled program rounds to every float and integer format: the grid is
three numbers. Powers of two are built in the exponent field, and rounding at
normal numbers is integer rounding of the float32 pattern, where a carry walks
into the exponent by itself; so every step is exact. float32 subnormals (below
2^-126) count as zero, as XLA flushes them.
"""

import dataclasses

import numpy as np

from lowbit.formats import base


@dataclasses.dataclass(frozen=True)
class GridFormat(base.Format):
  """A format that is nothing but its grid, whose numbers may be traced.

  It rounds to nearest as the format does that the grid is taken from. It has no
  codes: those need the format.
  """

  numbers: base.FloatGrid
  name = 'grid'
  bits = None

  @property
  def grid(self) -> base.FloatGrid:
    """The numbers."""
    return self.numbers

  @property
  def max(self):
    """The largest value."""
    return self.numbers.max

  def round(self, x, rounding='nearest', noise=None):
    """See `base.Format.round`; 'nearest' alone."""
    if rounding != 'nearest':
      raise ValueError(f"A grid rounds to 'nearest', got {rounding!r}.")
    del noise
    xp, grid = base.namespace(x), self.numbers
    v = base.to_float32(x)
    y = round_to_float_grid(v, grid.mantissa_bits, grid.min_exponent, -grid.min)
    y = xp.minimum(y, _asarray(xp, grid.max, np.float32))
    is_zero = (y == np.float32(0)) & ~_asarray(xp, grid.minus_zero, bool)
    y = base.where(is_zero, np.float32(0), y)
    y = base.where(xp.isnan(v), _asarray(xp, grid.nan, np.float32), y)
    return base.astype(y, x.dtype)


def round_to_float_grid(
  x, mantissa_bits, min_exponent, max_value, rounding='nearest', noise=None
):
  """Rounds to sign * 2^e * (1 + m / 2^M), e >= min_exponent, and subnormals.

  Args:
    x: Float array.
    mantissa_bits: M in [0, 23], a Python int or a traced int32.
    min_exponent: Exponent of the smallest normal number, in [-126, 126].
    max_value: Largest magnitude; larger results saturate to it.
    rounding: See `base.Format.encode`. For M = 0, 'nearest' sends a tie to
      the even exponent field, that of the smallest normal number being 1.
    noise: Uniform [0, 1) float32 of x's shape, for 'stochastic'.

  Returns:
    An array like `x`. NaN stays NaN, infinities saturate, -0 stays -0.

  Raises:
    TypeError: If `x` is not floating point.
    ValueError: If `rounding` is unknown or `noise` does not fit it.
  """
  base.check_rounding(rounding, noise)
  xp = base.namespace(x)
  v = base.to_float32(x)
  magnitude = xp.abs(v)
  negative = xp.signbit(v)
  if rounding == 'floor':  # Away from zero below zero.
    noise = base.where(negative, np.float32(1), np.float32(0))
  normal = _round_bits(
    xp, magnitude, mantissa_bits, min_exponent, rounding, noise
  )
  subnormal = _round_fixed(
    xp, magnitude, mantissa_bits, min_exponent, rounding, noise
  )
  smallest = _exp2(xp, min_exponent)
  y = base.where(magnitude >= smallest, normal, subnormal)
  y = xp.minimum(y, _asarray(xp, max_value, np.float32))
  y = xp.copysign(y, v)
  return base.astype(base.where(xp.isnan(v), v, y), x.dtype)


def is_plain(grid: base.FloatGrid) -> bool:
  """Whether `nearest_values` and `nearest_codes` serve a grid.

  They need a bit of mantissa, since for M = 0 a tie is judged by the exponent,
  and spacings whose half and whose reciprocal are normal float32 numbers.
  """
  lowest = grid.min_exponent - grid.mantissa_bits
  highest = np.frexp(grid.max)[1] - 1 - grid.mantissa_bits
  return grid.mantissa_bits > 0 and lowest >= -125 and highest <= 126


def nearest_values(v, grid: base.FloatGrid):
  """`round_to_float_grid` to nearest, of float32 and a plain static grid.

  In units of the spacing at v this is rounding to an integer, subnormals
  included: half the work of the general function. NaN becomes `grid.nan`.
  """
  limit = np.float32(grid.max)
  inside = base.clip(v, -limit, limit)
  spacing = _spacing_bits(inside, grid)
  y = base.rint(inside * reciprocal(spacing)) * spacing.view(np.float32)
  return base.where(v != v, np.float32(grid.nan), y)


def nearest_codes(v, grid: base.FloatGrid):
  """How many positive values of a plain grid are at most |v| rounded, int32."""
  xp = base.namespace(v)
  i = np.int32
  magnitude = xp.minimum(xp.abs(v), np.float32(grid.max))
  spacing = _spacing_bits(magnitude, grid)
  # Adding 2^23 rounds to an integer, and leaves it in the low bits.
  count = magnitude * reciprocal(spacing) + np.float32(2**23)
  m = grid.mantissa_bits
  lowest = i(grid.min_exponent + 127 - m << 23)
  below = (spacing - lowest) >> i(23 - m)
  return count.view(np.int32) - np.float32(2**23).view(np.int32) + below


def _spacing_bits(v, grid: base.FloatGrid):
  """The spacing of the grid at v, a power of two, as the bits of a float32."""
  i = np.int32
  lowest = i(grid.min_exponent + 127 << 23)
  binade_ = base.namespace(v).maximum(binade(v), lowest)
  return binade_ - i(grid.mantissa_bits << 23)


def binade(v):
  """The largest power of two that is at most |v|, as the bits of a float32."""
  return v.view(np.int32) & np.int32(0x7F800000)


def reciprocal(bits):
  """1 over a power of two that is given by its bits, float32."""
  return (np.int32(254 << 23) - bits).view(np.float32)


def _asarray(xp, value, dtype):
  return base.astype(xp.asarray(value), dtype)


def _exp2(xp, exponent):
  """2^exponent as float32, for an exponent in [-126, 127]."""
  field = (_asarray(xp, exponent, np.int32) + np.int32(127)) << np.int32(23)
  return field.view(np.float32)


def _round_bits(xp, magnitude, mantissa_bits, min_exponent, rounding, noise):
  """Rounds normal float32 numbers to M mantissa bits."""
  mantissa = _asarray(xp, mantissa_bits, np.int32)
  cut = np.int32(23) - mantissa
  one = np.int32(1)
  bits = magnitude.view(np.int32)
  if rounding == 'nearest':
    half = (one << cut) >> one
    # The last bit kept; for M = 0 that of the format's exponent field.
    shifted = base.where(
      mantissa == 0, _asarray(xp, min_exponent, np.int32), np.int32(0)
    )
    odd = ((bits >> cut) + shifted) & one
    bits = bits + base.where(cut > 0, half - one + odd, np.int32(0))
  elif rounding == 'away':
    bits = bits + ((one << cut) >> one)
  else:  # noise in [0, 1]: the chance that the cut bits carry.
    unit = base.astype(one << cut, np.float32)
    bits = bits + xp.minimum(
      base.astype(xp.floor(noise * unit), np.int32), (one << cut) - one
    )
  return ((bits >> cut) << cut).view(np.float32)


def _round_fixed(xp, magnitude, mantissa_bits, min_exponent, rounding, noise):
  """Rounds to multiples of 2^(min_exponent - M)."""
  exponent = _asarray(xp, min_exponent, np.int32)
  mantissa = _asarray(xp, mantissa_bits, np.int32)
  # The limits of 1 change nothing. They stand between two factors that XLA
  # would otherwise fold into one, which may be infinite or flushed to zero.
  one = np.float32(1)
  magnitude = xp.minimum(magnitude, _exp2(xp, exponent))
  fraction = xp.minimum(magnitude * _exp2(xp, -exponent), one)
  v = fraction * _exp2(xp, mantissa)
  if rounding in ('stochastic', 'floor'):
    low = xp.floor(v)
    v = low + base.astype(v - low > one - noise, np.float32)
  else:
    v = base.round_to_integer(v, rounding)
  return xp.minimum(v * _exp2(xp, -mantissa), one) * _exp2(xp, exponent)
