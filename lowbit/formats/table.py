"""Codebooks: any sorted list of values is a format."""

import dataclasses

import numpy as np

from lowbit.formats import base, search

SELECTED = 5  # Up to here levels of a search are selected, not gathered.


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

  def encode(self, x, rounding='nearest', noise=None):
    """See `base.Format.encode`."""
    codes = np.arange(len(self.table), dtype=np.int32)
    code = self._nearby(x, codes, rounding, noise)
    return base.astype(code, self.code_dtype)

  def round(self, x, rounding='nearest', noise=None):
    """See `base.Format.round`."""
    values = np.asarray(self.table, np.float32)
    return base.astype(self._nearby(x, values, rounding, noise), x.dtype)

  def _nearby(self, x, row, rounding, noise):
    """The entries of `row`, codes or values, that `x` rounds to."""
    base.check_rounding(rounding, noise)
    xp = base.namespace(x)
    v = base.to_float32(x)
    values = np.asarray(self.table, np.float32)
    v = base.where(xp.isnan(v), values[np.abs(values).argmin()], v)
    if rounding == 'stochastic':
      v = base.clip(v, values[0], values[-1])
    code, path = _search(v, self._edges(rounding))
    entry = _entry(row, code, path)
    if rounding != 'stochastic':
      return entry
    above = lambda row: _entry(np.append(row[1:], row[-1]), code, path)
    low, high = _entry(values, code, path), above(values)
    span = base.where(high > low, high - low, np.float32(1))
    return base.where(noise < (v - low) / span, above(row), entry)

  def decode(self, codes):
    """See `base.Format.decode`."""
    # Codes beyond the table, which no `encode` returns, are its last value.
    last = np.float32(self.table[-1])
    values = np.full(2 ** (8 * self.code_dtype.itemsize), last, np.float32)
    values[: len(self.table)] = self.table
    return base.take(values, base.astype(codes, np.int32))


def _search(v, edges: np.ndarray):
  """How many of the ascending `edges` are at most v, which is no NaN.

  Returns:
    `(code, path)`: the number, int32; and the outcome of each comparison of a
    search by halving, which runs in vector registers, or None for a large
    table, which is looked up.
  """
  xp = base.namespace(v)
  levels = len(edges).bit_length()
  if levels > SELECTED:
    return search.count(v, edges), None
  ends = np.full(2**levels - 1 - len(edges), np.inf, np.float32)
  edges = np.concatenate([edges, ends])
  code, path = xp.zeros(v.shape, np.int32), []
  for level in range(levels):
    middles = edges[2 ** (levels - level - 1) - 1 :: 2 ** (levels - level)]
    path.append(v >= _entry(middles, code, path))
    code = code * np.int32(2) + base.astype(path[-1], np.int32)
  return code, path


def _entry(row: np.ndarray, code, path):
  """row[code], by the comparisons that led to the code if they are known."""
  if path is None:
    return base.take(row, code)
  last = np.full(2 ** len(path) - len(row), row[-1])
  nodes = [*row, *last]
  for is_upper in reversed(path):
    pairs = zip(nodes[::2], nodes[1::2])
    nodes = [base.where(is_upper, high, low) for low, high in pairs]
  return nodes[0]
