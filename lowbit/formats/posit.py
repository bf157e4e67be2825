"""Posits: tapered precision, by integer arithmetic on the bit string."""

import dataclasses

import numpy as np

from lowbit.formats import base


@dataclasses.dataclass(frozen=True)
class Posit(base.Format):
  """posit(n, es): sign, run-length regime, es exponent bits, fraction.

  value = 2^(r 2^es + e) (1 + f). 'nearest' is nearest-even on the bit string,
  as in SoftPosit: where exponent bits are cut off it differs from the nearest
  value. No number rounds to 0 or to NaR, but for 'stochastic' and 'floor',
  which go between neighbouring values, 0 among them; float32 subnormals are 0,
  as XLA flushes them. NaN and Inf become NaR, and NaR decodes to NaN. Gustafson
  and Yonemoto, Beating Floating Point at its Own Game, 2017; Posit Standard
  (2022) fixes es = 2.
  """

  bits: int
  es: int

  def __post_init__(self):
    base.check_whole(bits=self.bits, es=self.es)
    if not (3 <= self.bits <= 16 and 0 <= self.es <= 4):
      raise ValueError(
        'A posit has 3..16 bits and es in 0..4, got '
        f'posit{self.bits}_{self.es}.'
      )
    if self.es >= self.bits - 1 or (self.bits - 2) * 2**self.es > 126:
      raise ValueError(
        f'posit{self.bits}_{self.es} leaves the range of float32, in which '
        'lowbit computes, or has no room for its exponent. Lower es.'
      )

  @property
  def name(self) -> str:
    """posit8_1."""
    return f'posit{self.bits}_{self.es}'

  @property
  def max(self) -> float:
    """maxpos, 2^((n - 2) 2^es)."""
    return 2.0 ** ((self.bits - 2) * 2**self.es)

  @property
  def scale_target(self) -> float:
    """useed, 2^(2^es): below it precision is highest."""
    return 2.0 ** (2**self.es)

  @property
  def _mask(self) -> int:
    return 2**self.bits - 1

  def _body(self, magnitude, rounding):
    """Positive float32 -> the n-1 bits behind the sign, int32."""
    n, es, i = self.bits, self.es, np.int32
    field = magnitude.view(np.int32)
    exponent = (field >> i(23)) - i(127)
    regime = exponent >> i(es)
    low = (exponent & i(2**es - 1)) << i(23) | (field & i(2**23 - 1))
    clipped = base.clip(regime, i(-(n - 2)), i(n - 3))
    # Regime string: r + 1 ones and a zero, or -r zeros and a one.
    up = clipped >= i(0)
    width = base.where(up, clipped + i(2), i(1) - clipped)
    run = base.where(up, (i(1) << (clipped + i(2))) - i(2), i(1))
    left = i(n - 1) - width  # Bits for exponent and fraction.
    cut = i(es + 23) - left
    body = (run << left) + (low >> cut)
    if rounding != 'floor':
      rest = low & ((i(1) << cut) - i(1))
      half = i(1) << (cut - i(1))
      tie_up = True if rounding == 'away' else (body & i(1)) == i(1)
      body = body + base.astype(
        (rest > half) | ((rest == half) & tie_up), np.int32
      )
    body = base.where(regime > i(n - 3), i(2 ** (n - 1) - 1), body)
    return base.where(regime < i(-(n - 2)), i(1), body)

  def encode(self, x, rounding='nearest', noise=None):
    """See `base.Format.encode`; other modes go between neighbouring values."""
    base.check_rounding(rounding, noise)
    xp = base.namespace(x)
    v = base.to_float32(x)
    magnitude = xp.abs(v)
    if rounding in ('nearest', 'away'):
      body = self._body(magnitude, rounding)
    else:
      body = self._between(v, magnitude, rounding, noise)
    body = base.where(magnitude < np.float32(2.0**-126), np.int32(0), body)
    code = base.where(v < np.float32(0), -body, body) & np.int32(self._mask)
    code = base.where(xp.isfinite(v), code, np.int32(2 ** (self.bits - 1)))
    return base.astype(code, self.code_dtype)

  def _between(self, v, magnitude, rounding, noise):
    xp = base.namespace(v)
    top = np.int32(2 ** (self.bits - 1) - 1)
    is_least = magnitude < np.float32(1 / self.max)  # Between 0 and minpos.
    low = base.where(is_least, np.int32(0), self._body(magnitude, 'floor'))
    high = xp.minimum(low + np.int32(1), top)
    small = base.where(is_least, np.float32(0), self._value(low))
    large = self._value(high)
    if rounding == 'floor':  # Below zero, away from it.
      up = (v < np.float32(0)) & (magnitude > small)
    else:
      span = base.where(large > small, large - small, np.float32(1))
      up = noise < (magnitude - small) / span
    return base.where(up, high, low)

  def _value(self, body):
    """The n-1 bits behind the sign -> positive float32."""
    xp = base.namespace(body)
    n, es, i = self.bits, self.es, np.int32
    ones = body >= i(2 ** (n - 2))
    inverted = base.where(ones, i(2 ** (n - 1) - 1) - body, body)
    # The leading one of `inverted` ends the regime's run.
    top = (base.astype(inverted, np.float32).view(np.int32) >> i(23)) - i(127)
    top = base.where(inverted == i(0), i(-1), top)
    run = i(n - 2) - top
    regime = base.where(ones, run - i(1), -run)
    left = xp.maximum(i(n - 2) - run, i(0))
    payload = body & ((i(1) << left) - i(1))
    aligned = payload << (i(es + 23) - left)
    exponent = (regime << i(es)) + (aligned >> i(23))
    fraction = aligned & i(2**23 - 1)
    return (((exponent + i(127)) << i(23)) | fraction).view(np.float32)

  def decode(self, codes):
    """See `base.Format.decode`."""
    code = base.astype(codes, np.int32)
    negative = code > np.int32(2 ** (self.bits - 1))
    body = base.where(negative, np.int32(2**self.bits) - code, code)
    y = self._value(
      base.clip(body, np.int32(1), np.int32(2 ** (self.bits - 1) - 1))
    )
    y = base.where(negative, -y, y)
    y = base.where(code == np.int32(0), np.float32(0), y)
    return base.where(
      code == np.int32(2 ** (self.bits - 1)), np.float32(np.nan), y
    )
