"""How many of some sorted edges lie at or below x: two look-ups, exactly.

A float's sign, exponent and first mantissa bits name a bucket; these are so
narrow that each holds one edge at most. A table then tells how many edges lie
below the bucket, and one comparison with its own edge decides the rest. Under
XLA on a CPU this is a hundred times faster than a binary search.
"""

import dataclasses
import functools

import numpy as np

from lowbit.formats import base

LARGEST = 2**15  # Entries of a table; longer ones would leave the cache.


@dataclasses.dataclass(frozen=True, eq=False)
class Buckets:
  """Tables over the buckets: those from 0 upwards, then those below 0."""

  edge: np.ndarray  # float32; infinity where a bucket has none.
  below: np.ndarray  # int32, edges below the bucket.
  shift: int  # Bits of a float32 that do not matter.
  lowest: int  # First bucket by magnitude; smaller ones are clamped to it.

  @property
  def half(self) -> int:
    """Buckets of one sign."""
    return len(self.edge) // 2


@functools.lru_cache(maxsize=256)
def build(edges: tuple[float, ...]) -> Buckets | None:
  """Tables for ascending float32 edges; None if they lie too close."""
  e = np.asarray(edges, np.float32) + np.float32(0)  # No -0.
  magnitude = np.abs(e).view(np.int32)
  for shift in range(23, 7, -1):
    keys = magnitude >> shift
    lowest, count = int(keys.min()), int(keys.max() - keys.min()) + 1
    if 2 * count > LARGEST:
      return None
    index = keys - lowest + np.where(e < 0, count, 0)
    if len(np.unique(index)) == len(e):
      return _fill(e, index, shift, lowest, count)
  return None


def _fill(e, index, shift, lowest, count) -> Buckets:
  edge = np.full(2 * count, np.inf, np.float32)
  edge[index] = e
  starts = (np.arange(count + 1, dtype=np.int64) + lowest) << shift
  starts = np.minimum(starts, 0x7F800000).astype(np.int32).view(np.float32)
  up, down = starts[:-1].copy(), -starts[1:]
  up[0], down[-1] = 0, -np.inf  # Magnitudes beyond the tables.
  below = np.concatenate(
    [np.searchsorted(e, up, 'left'), np.searchsorted(e, down, 'right')]
  )
  return Buckets(edge, below.astype(np.int32), shift, lowest)


def count(v, edges: np.ndarray):
  """How many of the ascending `edges` are <= v: int32, shape of v.

  Args:
    v: float32 array without NaN.
    edges: float32, ascending, distinct.
  """
  xp = base.namespace(v)
  buckets = build(tuple(edges.tolist()))
  if buckets is None:
    found = xp.searchsorted(xp.asarray(edges), v, side='right')
    return base.astype(found, np.int32)
  key = xp.abs(v).view(np.int32) >> np.int32(buckets.shift)
  key = key - np.int32(buckets.lowest)
  key = xp.clip(key, np.int32(0), np.int32(buckets.half - 1))
  key = key + xp.where(v < 0, np.int32(buckets.half), np.int32(0))
  edge = xp.take(xp.asarray(buckets.edge), key, axis=0)
  below = xp.take(xp.asarray(buckets.below), key, axis=0)
  return below + base.astype(v >= edge, np.int32)
