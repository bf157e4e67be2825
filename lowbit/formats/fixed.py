"""Fixed point: a word length and a fraction length."""

import dataclasses

import numpy as np

from lowbit.formats import base, integer


@dataclasses.dataclass(frozen=True)
class FixedPoint(base.Format):
  """Numbers i 2^-fraction, i a two's complement integer of `bits` bits.

  The <WL, FL> of AdaPT: Kummer et al., 2021 (arXiv:2107.13490). Codes are the
  integers; the full range is used, -2^(bits-1) included.
  """

  bits: int  # Word length, sign included.
  fraction: int  # Bits behind the point; may exceed the word, or be negative.

  def __post_init__(self):
    base.check_whole(bits=self.bits, fraction=self.fraction)
    if not (2 <= self.bits <= 16 and -60 <= self.fraction <= 60):
      raise ValueError(
        'Fixed point has a word of 2..16 bits and -60..60 bits behind the '
        f'point; got <{self.bits}, {self.fraction}>.'
      )

  @property
  def name(self) -> str:
    """fixed8_4, fixed8_-2."""
    return f'fixed{self.bits}_{self.fraction}'

  @property
  def _whole(self) -> integer.Integer:
    return integer.Integer(self.bits, full_range=True)

  @property
  def _step(self) -> np.float32:
    return np.float32(2.0**-self.fraction)

  @property
  def code_dtype(self) -> np.dtype:
    """int8 or int16."""
    return self._whole.code_dtype

  def codes(self) -> np.ndarray:
    """Every code, ascending."""
    return self._whole.codes()

  def encode(self, x, rounding='nearest', noise=None):
    """See `base.Format.encode`."""
    whole = self._whole
    # Clip first: a huge float times a power of two may overflow.
    low, high = np.float32(whole.low), np.float32(whole.high)
    v = base.clip(base.to_float32(x), low * self._step, high * self._step)
    return whole.encode(v * np.float32(2.0**self.fraction), rounding, noise)

  def decode(self, codes):
    """See `base.Format.decode`."""
    return self._whole.decode(codes) * self._step
