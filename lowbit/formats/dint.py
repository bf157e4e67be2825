"""dINT: integers with denormals (P100)."""

import dataclasses

import numpy as np

from lowbit.formats import base


@dataclasses.dataclass(frozen=True)
class DInt(base.Format):
  """Integers whose two outermost codes mean -1/2 and +1/2.

  dint4 is {0, +-1/2, +-1, ..., +-6}; a value goes to a half if
  1/4 < |x| < 3/4. Codes are the numbers; +-(2^(bits-1) - 1) are the halves.
  Twice every value is an integer, so products with integers stay exact.

  Lee et al., Enhancing Computation Efficiency in Large Language Models through
  Weight and Activation Quantization, 2023 (arXiv:2311.05161). The thresholds
  are the mid-points, worked out here: the paper does not print them.
  """

  bits: int

  def __post_init__(self):
    base.check_whole(bits=self.bits)
    if not 3 <= self.bits <= 8:
      raise ValueError(f'`bits` of dINT must lie in 3..8, got {self.bits}.')

  @property
  def name(self) -> str:
    """dint4."""
    return f'dint{self.bits}'

  @property
  def half_code(self) -> int:
    """The code that means +1/2."""
    return 2 ** (self.bits - 1) - 1

  @property
  def max(self) -> float:
    """The largest integer that is left: 6 for dint4."""
    return float(self.half_code - 1)

  @property
  def code_dtype(self) -> np.dtype:
    """int8."""
    return np.dtype(np.int8)

  def codes(self) -> np.ndarray:
    """Every code in use."""
    return np.arange(-self.half_code, self.half_code + 1).astype(np.int8)

  def encode(self, x, rounding='nearest', noise=None):
    """See `base.Format.encode`."""
    xp = base.namespace(x)
    value = base.to_float32(self.round(base.to_float32(x), rounding, noise))
    is_half = xp.abs(value) == np.float32(0.5)
    code = base.where(
      is_half,
      xp.copysign(np.float32(self.half_code) + xp.zeros_like(value), value),
      value,
    )
    return base.astype(code, np.int8)

  def decode(self, codes):
    """See `base.Format.decode`."""
    xp = base.namespace(codes)
    value = base.astype(codes, np.float32)
    half = xp.copysign(np.float32(0.5) + xp.zeros_like(value), value)
    return base.where(xp.abs(value) == np.float32(self.half_code), half, value)

  def round(self, x, rounding='nearest', noise=None):
    """See `base.Format.round`; ties go to the integer."""
    xp = base.namespace(x)
    v = base.to_float32(x)
    v = base.where(xp.isnan(v), np.float32(0), v)
    v = base.clip(v, np.float32(-self.max), np.float32(self.max))
    magnitude = xp.abs(v)
    if rounding == 'nearest':
      base.check_rounding(rounding, noise)
      half = (magnitude > np.float32(0.25)) & (magnitude < np.float32(0.75))
      y = base.where(half, np.float32(0.5), base.rint(magnitude))
    else:  # A grid of step 1/2 below 1, and of step 1 above.
      sign = base.where(v < np.float32(0), np.float32(-1), np.float32(1))
      fine = base.round_to_integer(v * np.float32(2), rounding, noise)
      coarse = base.round_to_integer(v, rounding, noise)
      y = sign * base.where(
        magnitude < np.float32(1), fine * np.float32(0.5), coarse
      )
    signed = xp.copysign(y, v)
    y = base.where(y == np.float32(0), np.float32(0), signed)  # No -0.
    return base.astype(y, x.dtype)
