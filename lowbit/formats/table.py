"""Codebooks: any sorted list of values is a format."""

import dataclasses
import statistics

import numpy as np

from lowbit.formats import base

DENSE = 32  # Up to here the search compares with every mid-point.


@dataclasses.dataclass(frozen=True)
class Table(base.Format):
  """Sorted values; a code is a value's index, a tie goes to the even index."""

  name: str
  bits: int
  table: tuple[float, ...]  # Ascending, representable in float32.

  def __post_init__(self):
    values = np.asarray(self.table, np.float32)
    if not 2 <= len(values) <= 2**self.bits or self.bits > 16:
      raise ValueError(
        f'`table` of {self.name} must hold 2 to {2**self.bits} values '
        f'({self.bits} bits), got {len(values)}.'
      )
    if not (np.isfinite(values).all() and (np.diff(values) > 0).all()):
      raise ValueError(
        f'`table` of {self.name} must be finite and strictly ascending in '
        'float32.'
      )
    object.__setattr__(self, 'table', tuple(float(v) for v in values))

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
      count = xp.searchsorted(xp.asarray(edges), v, side='right')
      return base.astype(count, np.int32)
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
    v = xp.where(xp.isnan(v), np.float32(self.table[zero]), v)
    v = xp.clip(v, np.float32(self.table[0]), np.float32(self.table[-1]))
    code = self._count(v, self._edges(rounding))
    if rounding == 'stochastic':
      high = xp.minimum(code + np.int32(1), np.int32(len(self.table) - 1))
      low_v, high_v = self.decode(code), self.decode(high)
      span = xp.where(high_v > low_v, high_v - low_v, np.float32(1))
      code = xp.where(noise < (v - low_v) / span, high, code)
    return base.astype(code, self.code_dtype)

  def decode(self, codes):
    """See `base.Format.decode`."""
    xp = base.namespace(codes)
    table = xp.asarray(np.asarray(self.table, np.float32))
    return xp.take(table, base.astype(codes, np.int32), axis=0)


def nf(bits: int) -> Table:
  """NormalFloat of 2 to 8 bits: quantiles of N(0, 1), scaled to [-1, 1].

  2^(b-1) points on the negative side (0 among them) and 2^(b-1) + 1 on the
  positive, between 1/2 and delta = 1 - (1/30 + 1/32)/2. Dettmers et al.,
  QLoRA, 2023 (arXiv:2305.14314), whose 16 constants this reproduces to 4e-7.
  """
  if not 2 <= bits <= 8:
    raise ValueError(f'`bits` of NF must lie in 2..8, got {bits}.')
  delta = 1 - (1 / 32 + 1 / 30) / 2
  inverse = statistics.NormalDist().inv_cdf
  side = lambda n: [inverse(p) for p in np.linspace(delta, 0.5, n)[:-1]]
  negative = [-v for v in side(2 ** (bits - 1))]
  positive = side(2 ** (bits - 1) + 1)
  values = np.sort([*negative, 0.0, *positive]) / positive[0]
  return Table(f'nf{bits}', bits, tuple(values.tolist()))
