"""What a format's values are good for: range and resolution, in numbers."""

import dataclasses
import math

import numpy as np

from lowbit import formats

NORMAL = (2.0**-126, float(np.finfo(np.float32).max))  # Below, XLA flushes.
EXACT = 2.0**-24  # Decades of error that float32 cannot tell from none.


@dataclasses.dataclass(frozen=True)
class Summary:
  """A format in numbers.

  `least` and `most` are decimal accuracies that hold for every real number
  between two neighbouring values: at worst over [target / 16, target], where
  `target` is what the absmax of a block is scaled to, and at best anywhere.
  -inf means that something in there rounds to 0; NaN, that there are no two
  positive values, or that the format has side data, and no one rounding.
  """

  name: str
  bits: float  # At rest, of one element.
  values: int  # Distinct finite ones.
  max: float  # Largest magnitude.
  smallest: float  # Smallest positive magnitude.
  decades: float  # Dynamic range, log10(max / smallest).
  target: float  # The absmax of a block is scaled to this.
  least: float
  most: float


def summary(fmt: formats.Format | str) -> Summary:
  """The summary of a format of at most 16 bits.

  Raises:
    ValueError: For an unknown name, or a format of more than 16 bits.
  """
  fmt = formats.get(fmt)
  values = fmt.values()
  magnitudes = np.abs(values[values != 0])
  top, low = float(magnitudes.max()), float(magnitudes.min())
  least = most = math.nan
  target = _target(fmt)
  if not isinstance(fmt, formats.SideFormat):
    edges, decimals = guaranteed_decimals(fmt)
    end = decimal_accuracy(fmt, np.float32([target / 16]))
    inner = decimals[(edges[1:] > target / 16) & (edges[:-1] < target)]
    least = float(np.min([*end[edges[:1] > target / 16], *inner]))
    most = float(decimals.max()) if len(decimals) else math.nan
  return Summary(
    fmt.name,
    float(fmt.storage_bits),
    len(values),
    top,
    low,
    math.log10(top / low),
    target,
    least,
    most,
  )


def _target(fmt: formats.Format) -> float:
  if isinstance(fmt, formats.Choice):
    return max(member.scale_target for member in fmt.members)
  inner = fmt.inner if isinstance(fmt, formats.TwoSided) else fmt
  return inner.scale_target


def guaranteed_decimals(
  fmt: formats.Format | str, sign: int = 1
) -> tuple[np.ndarray, np.ndarray]:
  """Decimal accuracy that holds for all numbers between two neighbours.

  The worst number lies where rounding turns from one neighbour to the other,
  which is found by bisection, whatever the format's rule of rounding is.

  Args:
    fmt: Format of at most 16 bits, without side data.
    sign: -1 for the values below zero, by their magnitudes.

  Returns:
    `(edges, decimals)`, float64 [n] and [n - 1]: the positive values that are
    normal float32 numbers, ascending, and the accuracy between each two.
  """
  fmt, sign = formats.get(fmt), np.float32(sign)
  values = np.sort(fmt.values() * sign)
  edges = values[values >= NORMAL[0]].astype(np.float32)
  if len(edges) < 2:
    return edges.astype(np.float64), np.zeros(0)
  # Positive float32 numbers are ordered as their bit patterns are.
  low, high = edges[:-1].view(np.int32), edges[1:].view(np.int32)
  for _ in range(32):
    middle = low + (high - low) // 2
    rounded = sign * np.asarray(fmt.round(sign * middle.view(np.float32)))
    is_up = rounded >= edges[1:]
    low = np.where(is_up | (high - low <= 1), low, middle)
    high = np.where(is_up & (middle > low), middle, high)
  worst = np.minimum(
    _decimals(low.view(np.float32), edges[:-1]),
    _decimals(high.view(np.float32), edges[1:]),
  )
  return edges.astype(np.float64), worst


def code_table(
  fmt: formats.Format | str,
) -> list[tuple[str, float, float, float]]:
  """(bit pattern, value, distance to the next value, decimals up to it).

  One row a code, in the order of the codes. Decimals are those guaranteed
  between the value and the next; next to zero they are NaN, and so are they and
  the distance for the largest value and for what is not finite. The bits are
  those of the code at rest.

  Raises:
    TypeError: For a format with side data, which has no codes of its own.
  """
  fmt = formats.get(fmt)
  if isinstance(fmt, formats.SideFormat):
    raise TypeError(
      f'{fmt.name} has side data for each block, and no one table. Show its '
      'members, such as the inner format.'
    )
  codes = fmt.codes()
  with np.errstate(all='ignore'):
    values = np.asarray(fmt.decode(codes), np.float64)
  ordered = fmt.values()
  place = np.searchsorted(ordered, values, side='right')
  above = np.append(ordered, np.nan)[np.minimum(place, len(ordered))]
  gaps = np.where(np.isfinite(values), above - values, np.nan)
  decimals = np.fmax(
    _after(values, *guaranteed_decimals(fmt)),
    _after(-above, *guaranteed_decimals(fmt, sign=-1)),
  )
  rows = zip(values.tolist(), gaps.tolist(), decimals.tolist())
  return [(p, *row) for p, row in zip(_patterns(fmt, codes), rows)]


def _patterns(fmt: formats.Format, codes: np.ndarray) -> list[str]:
  """Bits of each code; a sign of one bit is 0 below zero, as it is packed."""
  codes = codes.astype(np.int64)
  codes = (codes > 0).astype(np.int64) if fmt.bits == 1 else codes
  return [f'{int(c) & (2**fmt.bits - 1):0{fmt.bits}b}' for c in codes]


def _after(near, edges: np.ndarray, decimals: np.ndarray) -> np.ndarray:
  """`decimals` from the edge `near` on; NaN where there is no such edge."""
  known = dict(zip(edges.tolist(), decimals.tolist()))
  return np.asarray([known.get(v, np.nan) for v in near.tolist()])


def decimal_accuracy(fmt: formats.Format | str, x: np.ndarray) -> np.ndarray:
  """-log10 |log10(rounded / x)|: correct decimals at each magnitude.

  Gustafson and Yonemoto, Beating Floating Point at its Own Game, 2017. Numbers
  that round to themselves count as the float32 limit; to zero, or to no
  number, as -inf.

  Args:
    fmt: Format or name.
    x: Positive magnitudes, normal in float32.

  Returns:
    float64, like `x`.
  """
  x = np.asarray(x, np.float32)
  return _decimals(x, np.asarray(formats.get(fmt).round(x)))


def _decimals(x: np.ndarray, rounded: np.ndarray) -> np.ndarray:
  with np.errstate(divide='ignore', invalid='ignore'):
    ratio = np.abs(rounded.astype(np.float64)) / np.asarray(x, np.float64)
    decades = np.abs(np.log10(ratio))
  decades = np.where(np.isnan(decades), np.inf, decades)
  return -np.log10(np.maximum(decades, EXACT))
