"""Codebooks: any sorted list of values is a format."""

import dataclasses

import numpy as np

from lowbit.formats import base, search

DENSE = 32  # Up to here the search compares with every mid-point.


@dataclasses.dataclass(frozen=True)
class Table(base.Format):
  """Sorted values; a code is a value's index, a tie goes to the even index.

  Attributes:
    name: Of the format.
    bits: Of one code.
    table: The values, ascending, representable in float32.
    thresholds: Where 'nearest' goes from each value to the next; None for the
      mid-points. For formats that round in another domain, such as log2.
  """

  name: str
  bits: int
  table: tuple[float, ...]
  thresholds: tuple[float, ...] | None = None

  def __post_init__(self):
    base.check_whole(bits=self.bits)
    if not 1 <= self.bits <= 16:
      raise ValueError(
        f'`bits` of {self.name} must lie in 1..16, got {self.bits}.'
      )
    with np.errstate(over='ignore'):
      values = np.asarray(self.table, np.float64).astype(np.float32)
    if values.ndim != 1 or not 2 <= len(values) <= 2**self.bits:
      raise ValueError(
        f'`table` of {self.name} must hold 2 to {2**self.bits} values '
        f'({self.bits} bits), got shape {values.shape}.'
      )
    if not (np.isfinite(values).all() and (np.diff(values) > 0).all()):
      raise ValueError(
        f'`table` of {self.name} must be finite and strictly ascending in '
        f'float32, got {self.table}. Sort it, and drop doubles.'
      )
    object.__setattr__(self, 'table', tuple(float(v) for v in values))
    if self.thresholds is not None:
      self._check_thresholds()

  def _check_thresholds(self):
    edges = np.asarray(self.thresholds, np.float64)
    values = np.asarray(self.table)
    if len(edges) != len(values) - 1 or not (
      (edges > values[:-1]).all() and (edges <= values[1:]).all()
    ):
      raise ValueError(
        f'`thresholds` of {self.name} must lie one between each pair of '
        f'neighbours of its table, got {self.thresholds}.'
      )
    object.__setattr__(self, 'thresholds', tuple(edges.tolist()))

  @property
  def max(self) -> float:
    """The smaller of the two ends; the larger if all values have one sign."""
    low, high = self.table[0], self.table[-1]
    return min(high, -low) if low < 0 < high else max(abs(low), abs(high))

  @property
  def scale_target(self) -> float:
    """The larger end: an absmax scale then never saturates twice."""
    return max(abs(self.table[0]), abs(self.table[-1]))

  def codes(self) -> np.ndarray:
    """Every code in use."""
    return np.arange(len(self.table)).astype(self.code_dtype)

  def _edges(self, rounding: str) -> np.ndarray:
    """The smallest float32 that takes each code but the first."""
    values = np.asarray(self.table, np.float64)
    if rounding in ('stochastic', 'floor'):
      return values[1:].astype(np.float32)
    middles = (values[1:] + values[:-1]) / 2
    if self.thresholds is not None:
      middles = np.asarray(self.thresholds)
    if rounding == 'away':
      tie_up = middles > 0
    else:
      tie_up = np.arange(len(middles)) % 2 == 1
    edges = middles.astype(np.float32)
    below = np.where(tie_up, edges < middles, edges <= middles)
    return np.where(below, np.nextafter(edges, np.float32(np.inf)), edges)

  def _count(self, v, edges: np.ndarray):
    """How many edges are at most v."""
    xp = base.namespace(v)
    if len(edges) > DENSE:
      return search.count(v, edges)
    count = xp.zeros(v.shape, np.int32)
    for edge in edges:
      count = count + base.astype(v >= edge, np.int32)
    return count

  def encode(self, x, rounding='nearest', noise=None):
    """See `base.Format.encode`."""
    base.check_rounding(rounding, noise)
    xp = base.namespace(x)
    v = base.to_float32(x)
    zero = np.abs(np.asarray(self.table)).argmin()
    code = self._count(v, self._edges(rounding))
    code = xp.where(xp.isnan(v), np.int32(zero), code)
    if rounding == 'stochastic':
      v = xp.clip(v, np.float32(self.table[0]), np.float32(self.table[-1]))
      high = xp.minimum(code + np.int32(1), np.int32(len(self.table) - 1))
      low_v, high_v = self.decode(code), self.decode(high)
      span = xp.where(high_v > low_v, high_v - low_v, np.float32(1))
      code = xp.where(noise < (v - low_v) / span, high, code)
    return base.astype(code, self.code_dtype)

  def decode(self, codes):
    """See `base.Format.decode`."""
    # Codes beyond the table, which no `encode` returns, are its last value.
    last = np.float32(self.table[-1])
    values = np.full(2 ** (8 * self.code_dtype.itemsize), last, np.float32)
    values[: len(self.table)] = self.table
    return base.take(values, base.astype(codes, np.int32))
