"""Minifloats ExMy of any split, and E8M0, the power-of-two scale."""

import dataclasses

import ml_dtypes
import numpy as np

from lowbit.formats import base, float_grid

SPECIALS = ('finite', 'ieee', 'fn', 'fnuz')
# What a plain eXmY means: OCP's format where OCP defines one, else that of
# ml_dtypes, else all codes finite. Every other kind has a suffix.
PLAIN = {(4, 3): 'fn', (5, 2): 'ieee', (3, 4): 'ieee'}
SHORT = {(5, 10): 'fp16', (8, 7): 'bf16'}  # Both 'ieee'.
SPLITS = {name: split for split, name in SHORT.items()}


@dataclasses.dataclass(frozen=True)
class Minifloat(base.Format):
  """A float of 1 sign bit, E exponent bits and M mantissa bits.

  value = (-1)^s 2^(e - bias) (1 + m / 2^M); for e = 0 the subnormals
  (-1)^s 2^(1 - bias) m / 2^M. OCP 8-bit Floating Point v1.0 and OCP
  Microscaling v1.0, 2023; fnuz as in ml_dtypes.

  Attributes:
    exponent: E in 1..8.
    mantissa: M in 0..10; 1 + E + M <= 16.
    specials: 'finite' = every code is a number; 'ieee' = the top exponent holds
      Inf and NaN; 'fn' = only all ones is NaN; 'fnuz' = the code of -0 is NaN,
      no Inf.
    bias: None for 2^(E-1) - 1, one more for fnuz.
    saturate: Overflow and infinities go to +-max; else to Inf, or NaN, as in a
      cast of ml_dtypes (to +-max where the format has neither).
  """

  exponent: int
  mantissa: int
  specials: str = 'finite'
  bias: int | None = None
  saturate: bool = True

  def __post_init__(self):
    e, m = self.exponent, self.mantissa
    base.check_whole(exponent=e, mantissa=m, bias=self.bias or 0)
    if not (1 <= e <= 8 and 0 <= m <= 10 and 2 <= 1 + e + m <= 16):
      raise ValueError(
        f'A minifloat has 1..8 exponent bits, 0..10 mantissa bits and at most '
        f'16 bits with its sign; got e{e}m{m}. A format without exponent is an '
        'integer: use int names.'
      )
    if self.specials not in SPECIALS:
      raise ValueError(
        f'`specials` must be one of {SPECIALS}, got {self.specials!r}.'
      )
    if self.specials in ('ieee', 'fn') and (
      e < 2 or (self.specials == 'fn' and m == 0)
    ):
      raise ValueError(
        f'e{e}m{m} has no codes to spare for specials={self.specials!r}. Use '
        "'finite'."
      )
    if self.bias is None:
      bias = 2 ** (e - 1) - 1 + (self.specials == 'fnuz')
      object.__setattr__(self, 'bias', bias)
    if not -126 <= self.min_exponent <= 126 or self._top_exponent > 127:
      raise ValueError(
        f'e{e}m{m} with bias {self.bias} leaves the range of float32, in which '
        'lowbit computes.'
      )

  @property
  def bits(self) -> int:
    """1 + E + M."""
    return 1 + self.exponent + self.mantissa

  @property
  def name(self) -> str:
    """e2m1, e4m3ieee, fp16, e3m2finite_bias5, ..."""
    split = (self.exponent, self.mantissa)
    standard = 2 ** (self.exponent - 1) - 1 + (self.specials == 'fnuz')
    plain = PLAIN.get(split, 'finite')
    if split in SHORT and self.specials == 'ieee':
      name = SHORT[split]
    else:
      suffix = '' if self.specials == plain else self.specials
      name = f'e{self.exponent}m{self.mantissa}{suffix}'
    name += '' if self.bias == standard else f'_bias{self.bias}'
    return name + ('' if self.saturate else '_overflow')

  @property
  def min_exponent(self) -> int:
    """Exponent of the smallest normal number."""
    return 1 - self.bias

  @property
  def _top_exponent(self) -> int:
    top = 2**self.exponent - 1 - (self.specials == 'ieee')
    if self.specials == 'fn' and self.mantissa == 0:
      top -= 1
    return top - self.bias

  @property
  def max(self) -> float:
    """The largest finite value."""
    fraction = 2**self.mantissa - 1 - (self.specials == 'fn')
    return 2.0**self._top_exponent * (1 + fraction / 2**self.mantissa)

  @property
  def grid(self) -> base.FloatGrid:
    """The numbers of `round_to_float_grid`, as if it saturated."""
    return base.FloatGrid(
      self.mantissa,
      self.min_exponent,
      self.max,
      -self.max,
      minus_zero=self.specials != 'fnuz',
      nan=0.0 if self._nan_code is None else np.nan,
    )

  @property
  def dtype(self) -> np.dtype | None:
    """The ml_dtypes (or NumPy) type with the same bit patterns."""
    return _DTYPES.get((self.exponent, self.mantissa, self.specials, self.bias))

  @property
  def _nan_code(self) -> int | None:
    ones = 2 ** (self.exponent + self.mantissa) - 1
    quiet = (ones >> self.mantissa << self.mantissa) | (1 << self.mantissa >> 1)
    return {
      'finite': None,
      'fn': ones,
      'fnuz': 2 ** (self.bits - 1),
      'ieee': quiet if self.mantissa else None,
    }[self.specials]

  @property
  def _inf_code(self) -> int | None:
    if self.specials != 'ieee':
      return None
    return (2**self.exponent - 1) << self.mantissa

  def round(self, x, rounding='nearest', noise=None):
    """See `base.Format.round`."""
    base.check_rounding(rounding, noise)
    xp = base.namespace(x)
    limit = self.max if self.saturate else np.float32(np.inf)
    v = base.to_float32(x)
    if self._is_plain(rounding):
      y = float_grid.nearest_values(v, self.grid)
      return base.astype(self._without_minus_zero(y), x.dtype)
    y = float_grid.round_to_float_grid(
      v, self.mantissa, self.min_exponent, limit, rounding, noise
    )
    if not self.saturate:
      over = {'ieee': np.inf, 'finite': self.max}.get(self.specials, np.nan)
      y = base.where(
        xp.abs(y) > np.float32(self.max), xp.copysign(np.float32(over), y), y
      )
    if self._nan_code is None:
      y = base.where(xp.isnan(v), np.float32(0), y)
    return base.astype(self._without_minus_zero(y), x.dtype)

  def _without_minus_zero(self, y):
    if self.specials != 'fnuz':
      return y
    return base.where(y == np.float32(0), np.float32(0), y)

  def _is_plain(self, rounding: str) -> bool:
    is_nearest = rounding == 'nearest' and self.saturate
    return is_nearest and float_grid.is_plain(self.grid)

  def encode(self, x, rounding='nearest', noise=None):
    """See `base.Format.encode`."""
    base.check_rounding(rounding, noise)
    v = base.to_float32(x)
    if not self._is_plain(rounding):
      return self._encode_value(self.round(v, rounding, noise))
    xp = base.namespace(v)
    i = np.int32
    code = float_grid.nearest_codes(v, self.grid)
    sign = (v.view(np.int32) >> i(32 - self.bits)) & i(2 ** (self.bits - 1))
    if self.specials == 'fnuz':  # It has no -0.
      sign = base.where(code == i(0), i(0), sign)
    if self._nan_code is None:
      code = base.where(xp.isnan(v), i(0), code | sign)
    else:
      code = base.where(xp.isnan(v), i(self._nan_code), code) | sign
    return base.astype(code, self.code_dtype)

  def _encode_value(self, y):
    """Codes of values of the format."""
    xp = base.namespace(y)
    magnitude = xp.abs(y)
    normal = (magnitude.view(np.int32) >> np.int32(23 - self.mantissa)) - (
      np.int32((127 - self.bias) << self.mantissa)
    )
    smallest = np.float32(2.0**self.min_exponent)
    fraction = xp.minimum(  # See `float_grid._round_fixed` for the limit of 1.
      xp.minimum(magnitude, smallest) * np.float32(2.0**-self.min_exponent),
      np.float32(1),
    )
    subnormal = base.astype(fraction * np.float32(2.0**self.mantissa), np.int32)
    code = base.where(magnitude >= smallest, normal, subnormal)
    if self._inf_code is not None:
      code = base.where(xp.isinf(y), np.int32(self._inf_code), code)
    if self._nan_code is not None:
      code = base.where(xp.isnan(y), np.int32(self._nan_code), code)
    sign = base.astype(xp.signbit(y), np.int32) << np.int32(self.bits - 1)
    return base.astype(code | sign, self.code_dtype)

  def decode(self, codes):
    """See `base.Format.decode`."""
    xp = base.namespace(codes)
    code = base.astype(codes, np.int32)
    body = code & np.int32(2 ** (self.bits - 1) - 1)
    shifted = body + np.int32((127 - self.bias) << self.mantissa)
    normal = (shifted << np.int32(23 - self.mantissa)).view(np.float32)
    fraction = base.astype(body, np.float32) * np.float32(2.0**-self.mantissa)
    # See `float_grid._round_fixed` for the limit of 1.
    subnormal = xp.minimum(fraction, np.float32(1)) * np.float32(
      2.0**self.min_exponent
    )
    y = base.where(body < np.int32(2**self.mantissa), subnormal, normal)
    if self._inf_code is not None:
      y = base.where(body == np.int32(self._inf_code), np.float32(np.inf), y)
      y = base.where(body > np.int32(self._inf_code), np.float32(np.nan), y)
    if self.specials == 'fn':
      y = base.where(body == np.int32(self._nan_code), np.float32(np.nan), y)
    y = base.where(code >= np.int32(2 ** (self.bits - 1)), -y, y)
    if self.specials == 'fnuz':
      y = base.where(code == np.int32(self._nan_code), np.float32(np.nan), y)
    return y


def _table():
  kinds = {
    (4, 3, 'fn', 7): 'float8_e4m3fn',
    (5, 2, 'ieee', 15): 'float8_e5m2',
    (4, 3, 'ieee', 7): 'float8_e4m3',
    (3, 4, 'ieee', 3): 'float8_e3m4',
    (4, 3, 'fnuz', 8): 'float8_e4m3fnuz',
    (5, 2, 'fnuz', 16): 'float8_e5m2fnuz',
    (4, 3, 'fnuz', 11): 'float8_e4m3b11fnuz',
    (2, 1, 'finite', 1): 'float4_e2m1fn',
    (2, 3, 'finite', 1): 'float6_e2m3fn',
    (3, 2, 'finite', 3): 'float6_e3m2fn',
    (8, 7, 'ieee', 127): 'bfloat16',
  }
  table = {
    key: np.dtype(getattr(ml_dtypes, name)) for key, name in kinds.items()
  }
  return table | {(5, 10, 'ieee', 15): np.dtype(np.float16)}


_DTYPES = _table()


@dataclasses.dataclass(frozen=True)
class Float32(base.Format):
  """float32 itself: the identity, for tables and recipes."""

  bits: int = 32
  name = 'fp32'
  max = float(np.finfo(np.float32).max)
  dtype = code_dtype = np.dtype(np.float32)

  def values(self) -> np.ndarray:
    """Raises: 2^32 values are not listed."""
    raise ValueError('`values()` lists formats of at most 16 bits, not fp32.')

  def encode(self, x, rounding='nearest', noise=None):
    """Returns `x` as float32."""
    del rounding, noise
    return base.to_float32(x)

  def decode(self, codes):
    """Returns the codes, which are the values."""
    return base.astype(codes, np.float32)


@dataclasses.dataclass(frozen=True)
class E8M0(base.Format):
  """Powers of two: code c means 2^(c - 127), 255 means NaN. No sign, no zero.

  The scale of OCP Microscaling v1.0. 'nearest' rounds in the value, ties go
  up, as in ml_dtypes. Zero, negative values and values below
  2^-127 take code 0; values that round above 2^127 and infinities are NaN.
  XLA flushes 2^-127 to zero, so that lowbit's scales never go below 2^-126.
  """

  bits: int = 8
  name = 'e8m0'

  @property
  def max(self) -> float:
    """2^127; there is no sign."""
    return 2.0**127

  @property
  def dtype(self) -> np.dtype:
    """ml_dtypes.float8_e8m0fnu."""
    return np.dtype(ml_dtypes.float8_e8m0fnu)

  def encode(self, x, rounding='nearest', noise=None):
    """See `base.Format.encode`."""
    base.check_rounding(rounding, noise)
    xp = base.namespace(x)
    v = base.to_float32(x)
    bits = v.view(np.int32)
    if rounding in ('nearest', 'away'):
      bits = bits + np.int32(2**22)
    elif rounding == 'stochastic':
      bits = bits + base.astype(xp.floor(noise * np.float32(2**23)), np.int32)
    code = base.clip(bits >> np.int32(23), np.int32(0), np.int32(255))
    code = base.where(v > np.float32(0), code, np.int32(0))
    code = base.where(xp.isnan(v), np.int32(255), code)
    return base.astype(code, np.uint8)

  def decode(self, codes):
    """See `base.Format.decode`."""
    code = base.astype(codes, np.int32)
    field = base.where(
      code == np.int32(0), np.int32(1 << 22), code << np.int32(23)
    )
    return base.where(
      code == np.int32(255), np.float32(np.nan), field.view(np.float32)
    )
