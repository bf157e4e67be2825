"""How many of some sorted edges lie at or below x: one look-up, exactly.

A float's sign, exponent and first mantissa bits name a bucket; these are so
narrow that each holds one edge at most. A table then tells how many edges lie
below the bucket, and, in the same word, where in the bucket its edge lies, to
compare the other mantissa bits with. Under XLA on a CPU this is a hundred times
faster than a binary search.
"""

import dataclasses
import functools

import numpy as np

from lowbit.formats import base

LARGEST = 2**15  # Entries of a table; longer ones would leave the cache.


@dataclasses.dataclass(frozen=True, eq=False)
class Buckets:
  """A word for each bucket: those from 0 upwards, then those below 0.

  A word is count << (shift + 1) | offset: `count` edges lie below x if its
  other mantissa bits are below `offset`, and one more (of a negative x: one
  less) if not. Offset 2^shift is never reached: no edge in the bucket.
  """

  words: np.ndarray  # int32.
  shift: int  # Mantissa bits that do not name a bucket.
  lowest: int  # Key of the first bucket; smaller magnitudes fall in it.
  half: int  # Buckets of one sign.


@functools.lru_cache(maxsize=256)
def build(edges: tuple[float, ...]) -> Buckets | None:
  """The table for ascending float32 edges; None if they lie too close."""
  e = np.asarray(edges, np.float32) + np.float32(0)  # No -0.
  magnitude = np.abs(e).view(np.int32)
  room = 30 - len(e).bit_length()  # Bits that the count leaves for offsets.
  for shift in range(min(23, room), 7, -1):
    keys = magnitude >> shift
    # An empty bucket on either side takes all magnitudes beyond the edges.
    lowest, half = int(keys.min()) - 1, int(keys.max() - keys.min()) + 3
    if half > LARGEST // 2:
      return None
    index = keys - lowest + np.where(e < 0, half, 0)
    if len(np.unique(index)) == len(e):
      words = _words(e, magnitude, index, shift, lowest, half)
      return Buckets(words, shift, lowest, half)
  return None


def _words(e, magnitude, index, shift, lowest, half):
  starts = (np.arange(half + 1, dtype=np.int64) + lowest) << shift
  starts = np.clip(starts, 0, 0x7F800000).astype(np.int32).view(np.float32)
  up = np.searchsorted(e, starts[:-1], 'left')
  down = np.searchsorted(e, -starts[1:], 'right')
  up[0], down[-1] = (e < 0).sum(), 0
  count = np.concatenate([up, down]).astype(np.int64)
  offset = np.full(2 * half, 1 << shift)
  is_negative = (e < 0).astype(np.int64)
  offset[index] = (magnitude & ((1 << shift) - 1)) + is_negative
  count[index] += is_negative
  return (count << (shift + 1) | offset).astype(np.int32)


def count(v, edges: np.ndarray):
  """How many of the ascending `edges` are <= v: int32, shape of v.

  Args:
    v: float32 array; what a NaN counts is not defined, but in bounds.
    edges: float32, ascending, distinct.
  """
  xp = base.namespace(v)
  table = build(tuple(edges.tolist()))
  if table is None:
    found = xp.searchsorted(xp.asarray(edges), v, side='right')
    return base.astype(found, np.int32)
  is_signed = edges[0] < 0
  magnitude = xp.abs(v) if is_signed else xp.maximum(v, np.float32(0))
  bits = magnitude.view(np.int32)
  key = (bits >> np.int32(table.shift)) - np.int32(table.lowest)
  key = base.clip(key, np.int32(0), np.int32(table.half - 1))
  if is_signed:
    key = key + base.where(v < 0, np.int32(table.half), np.int32(0))
  word = base.take(table.words, key)
  low = bits & np.int32((1 << table.shift) - 1)
  offset = word & np.int32((2 << table.shift) - 1)
  step = base.astype(low >= offset, np.int32)
  if is_signed:
    step = base.where(v < 0, -step, step)
  return (word >> np.int32(table.shift + 1)) + step
