"""Integers: narrow and full range, unsigned, ternary, and signs."""

import dataclasses

import numpy as np

from lowbit.formats import base


@dataclasses.dataclass(frozen=True)
class Integer(base.Format):
  """Whole numbers of 1 to 16 bits; codes are the numbers themselves.

  int4 is narrow, [-7, 7], so that it is symmetric; int4f has -8 as well; uint4
  is [0, 15]; ternary is {-1, 0, 1} in 1.6 bits; int1 is {-1, +1}.
  """

  bits: int
  signed: bool = True
  full_range: bool = False
  ternary: bool = False  # Stored 5 in 8 bits.

  def __post_init__(self):
    base.check_whole(bits=self.bits)
    if not 1 <= self.bits <= 16:
      raise ValueError(
        f'`bits` of an integer must lie in 1..16, got {self.bits}. Wider '
        'ones are fp32; a sign alone is int1.'
      )
    if self.ternary and (self.bits != 2 or not self.signed or self.full_range):
      raise ValueError('A ternary integer is Integer(2, ternary=True).')
    if self.full_range and (not self.signed or self.bits == 1):
      raise ValueError(
        'full_range concerns signed integers of at least 2 bits: narrow int4 '
        f'ends at -7, full int4f at -8. Got {self.bits=}, {self.signed=}.'
      )

  @property
  def name(self) -> str:
    """int4, int4f, uint4 or ternary."""
    if self.ternary:
      return 'ternary'
    prefix = 'int' if self.signed else 'uint'
    return f'{prefix}{self.bits}{"f" if self.full_range else ""}'

  @property
  def low(self) -> int:
    """The smallest number."""
    if not self.signed:
      return 0
    return -self.high - int(self.full_range)

  @property
  def high(self) -> int:
    """The largest number."""
    if not self.signed:
      return 2**self.bits - 1
    return max(2 ** (self.bits - 1) - 1, 1)

  @property
  def max(self) -> float:
    """The largest magnitude; of both signs for signed integers."""
    return float(self.high)

  @property
  def storage_bits(self) -> float:
    """The width; 1.6 for ternary."""
    return 1.6 if self.ternary else self.bits

  @property
  def code_dtype(self) -> np.dtype:
    """int8 or int16; uint8 or uint16 if unsigned."""
    kind = 'int' if self.signed else 'uint'
    return np.dtype(f'{kind}{8 if self.bits <= 8 else 16}')

  @property
  def dtype(self) -> np.dtype | None:
    """The NumPy type with the same bit patterns, for 8 and 16 bits."""
    return self.code_dtype if self.bits in (8, 16) else None

  @property
  def grid(self) -> base.FloatGrid | None:
    """A grid of step 1; none for unsigned and for signs."""
    if not self.signed or self.bits == 1:
      return None
    exponent = self.bits - 2
    return base.FloatGrid(
      exponent, exponent, self.max, float(self.low), minus_zero=False, nan=0.0
    )

  def codes(self) -> np.ndarray:
    """Every number of the format, ascending."""
    step = 2 if self.signed and self.bits == 1 else 1
    return np.arange(self.low, self.high + 1, step).astype(self.code_dtype)

  def _round(self, x, rounding, noise):
    v = base.to_float32(x)
    xp = base.namespace(x)
    if self.signed and self.bits == 1:
      return self._sign(v, rounding, noise)
    v = base.where(xp.isnan(v), np.float32(0), v)
    # Clip first: a huge float has no place to round.
    v = base.clip(v, np.float32(self.low), np.float32(self.high))
    return base.round_to_integer(v, rounding, noise)

  def _sign(self, v, rounding, noise):
    base.check_rounding(rounding, noise)
    if rounding == 'stochastic':
      up = noise < (v + np.float32(1)) * np.float32(0.5)
    elif rounding == 'floor':
      up = v >= np.float32(1)
    else:
      up = ~(v < np.float32(0))  # Zero, and NaN, count as +1.
    return base.where(up, np.float32(1), np.float32(-1))

  def encode(self, x, rounding='nearest', noise=None):
    """See `base.Format.encode`."""
    return base.astype(self._round(x, rounding, noise), self.code_dtype)

  def decode(self, codes):
    """See `base.Format.decode`."""
    return base.astype(codes, np.float32)

  def round(self, x, rounding='nearest', noise=None):
    """See `base.Format.round`."""
    y = self._round(x, rounding, noise)
    y = base.namespace(x).where(y == np.float32(0), np.float32(0), y)  # No -0.
    return base.astype(y, x.dtype)
