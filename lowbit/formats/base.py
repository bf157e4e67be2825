"""What a number format is: a frozen value with encode, decode and round."""

import dataclasses
import numbers
from typing import Any

import numpy as np

ROUNDINGS = ('nearest', 'stochastic', 'floor', 'away')
Array = Any  # numpy or JAX; all arithmetic goes through its own namespace.
# jax.lax, put here by `lowbit.quantize`: formats import NumPy alone.
lax: Any = None


@dataclasses.dataclass(frozen=True)
class FloatGrid:
  """The numbers that place a format on the grid of `round_to_float_grid`.

  What its ends, zeros and NaN are as well: `float_grid.GridFormat` rounds as
  the format does.
  """

  mantissa_bits: int
  min_exponent: int  # Of the smallest normal number.
  max: float  # The largest value.
  min: float  # The smallest value: -max, but for full-range integers.
  minus_zero: bool = True  # Whether there is a -0.
  nan: float = np.nan  # What NaN rounds to: NaN or 0.


class Format:
  """Base of all formats: unscaled element values and their codes.

  A format is a frozen dataclass, hence hashable and static under jit. Its
  methods take NumPy arrays, JAX arrays and tracers of float32, bfloat16 or
  float16, and compute in float32 (float64 input is rounded to float32 first).

  A format without NaN encodes NaN as the code of zero, and one without
  infinities saturates them: the quantizers carry NaN and Inf in the scale.
  """

  name: str
  bits: int

  @property
  def max(self) -> float:
    """The largest magnitude that is reachable with both signs."""
    values = self.values()
    return float(min(values[-1], -values[0]))

  @property
  def scale_target(self) -> float:
    """The value that the absmax of a block is scaled to."""
    return self.max

  @property
  def storage_bits(self) -> float:
    """Bits of one packed element."""
    return self.bits

  @property
  def code_dtype(self) -> np.dtype:
    """dtype of the codes: uint8 up to 8 bits, uint16 up to 16."""
    return np.dtype(np.uint8 if self.bits <= 8 else np.uint16)

  @property
  def dtype(self) -> np.dtype | None:
    """The NumPy or ml_dtypes type with the same bit patterns, if any."""
    return None

  @property
  def grid(self) -> FloatGrid | None:
    """The format as a float grid, if it is one."""
    return None

  def codes(self) -> np.ndarray:
    """Every code, in the order of its bit pattern."""
    return np.arange(2**self.bits).astype(self.code_dtype)

  def values(self) -> np.ndarray:
    """The distinct finite values, sorted, float64."""
    with np.errstate(all='ignore'):
      values = np.asarray(self.decode(self.codes()), np.float64)
    return np.unique(values[np.isfinite(values)])

  def encode(self, x: Array, rounding: str = 'nearest', noise=None) -> Array:
    """Codes of the values that `x` rounds to.

    Args:
      x: Float array of any shape.
      rounding: 'nearest' (ties to even), 'stochastic', 'floor' (toward
        -infinity) or 'away' (nearest, ties away from zero).
      noise: For 'stochastic', float32 uniform in [0, 1), of the shape of x.

    Returns:
      An array of `code_dtype` with the shape of `x`.
    """
    raise NotImplementedError

  def decode(self, codes: Array) -> Array:
    """Values of `codes`, float32, exact."""
    raise NotImplementedError

  def round(self, x: Array, rounding: str = 'nearest', noise=None) -> Array:
    """The values that `x` rounds to, in the dtype of `x`."""
    return astype(self.decode(self.encode(x, rounding, noise)), x.dtype)


def namespace(x: Array):
  """numpy or jax.numpy, whichever `x` belongs to; TypeError for neither."""
  if not hasattr(x, '__array_namespace__'):
    raise TypeError(
      f'`x` must be a NumPy or JAX array, got {type(x).__name__}. Convert it, '
      'for example with numpy.asarray(x, numpy.float32).'
    )
  return x.__array_namespace__()


def check_whole(**values) -> None:
  """Raises TypeError unless all are whole numbers, such as counts of bits."""
  for name, value in values.items():
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
      raise TypeError(
        f'`{name}` must be a whole number, got {value!r}. Write it as an int.'
      )


def where(condition: Array, yes: Array, no: Array) -> Array:
  """np.where of arrays and scalars of one dtype.

  Of JAX arrays it is one operation. That of jax.numpy is a program of its own,
  which takes longer to trace than a format does to round.
  """
  if isinstance(condition, np.ndarray | np.generic):
    return np.where(condition, yes, no)
  shapes = (np.shape(a) for a in (condition, yes, no))
  shape = np.broadcast_shapes(*shapes)
  full = lambda a: namespace(condition).broadcast_to(a, shape)
  return lax.select(full(condition), full(yes), full(no))


def clip(x: Array, low, high) -> Array:
  """np.clip to scalars of the dtype of `x`; NaN stays NaN."""
  if isinstance(x, np.ndarray | np.generic):
    return np.clip(x, low, high)
  return lax.clamp(low, x, high)


def rint(x: Array) -> Array:
  """np.rint: to the nearest whole number, ties to even."""
  if isinstance(x, np.ndarray | np.generic):
    return np.rint(x)
  return lax.round(x, lax.RoundingMethod.TO_NEAREST_EVEN)


def astype(x: Array, dtype) -> Array:
  """`x` in another dtype; out-of-range casts are silent as in XLA."""
  with np.errstate(all='ignore'):
    return x.astype(dtype)


def take(table: np.ndarray, index: Array) -> Array:
  """table[index], of the kind of `index`, which must be in bounds."""
  if isinstance(index, np.ndarray | np.generic):
    return table[index]
  table = namespace(index).asarray(table)
  return table.at[index].get(mode='promise_in_bounds')


def to_float32(x: Array) -> Array:
  """`x` as float32; TypeError unless NumPy or ml_dtypes calls it a float."""
  namespace(x)
  dtype = np.dtype(x.dtype)
  if not dtype.name.startswith(('bfloat', 'float', 'longdouble')):
    raise TypeError(
      f'`x` must be floating point, got {dtype}. Convert it, for example with '
      'x.astype(jnp.float32).'
    )
  return astype(x, np.float32)


def check_rounding(rounding: str, noise) -> None:
  """Raises ValueError for an unknown mode, or stochastic without noise."""
  if rounding not in ROUNDINGS:
    raise ValueError(
      f'`rounding` must be one of {ROUNDINGS}, got {rounding!r}.'
    )
  if (rounding == 'stochastic') != (noise is not None):
    raise ValueError(
      f"`noise` goes with rounding='stochastic', and only with it; got "
      f'rounding={rounding!r} and noise={"None" if noise is None else "given"}.'
    )


def round_to_integer(x: Array, rounding: str, noise=None) -> Array:
  """Rounds float32 `x` to whole numbers; see `Format.encode` for the modes."""
  check_rounding(rounding, noise)
  xp = namespace(x)
  if rounding == 'nearest':
    return rint(x)
  if rounding == 'floor':
    return xp.floor(x)
  if rounding == 'stochastic':
    low = xp.floor(x)
    return low + astype(noise < x - low, np.float32)
  # Not floor(|x| + 0.5): that sum rounds up just below one half.
  magnitude = xp.abs(x)
  low = xp.floor(magnitude)
  return xp.copysign(
    low + astype(magnitude - low >= np.float32(0.5), np.float32), x
  )
