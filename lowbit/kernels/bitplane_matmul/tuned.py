"""Tile sizes of the bit planes: a rule, none was measured yet."""

import dataclasses
import math

VMEM = 64 * 2**20  # Bytes of a TPU core that the blocks may take.


@dataclasses.dataclass(frozen=True)
class Tiles:
  """A block of the output, and how many words of K come at once."""

  block_m: int
  block_n: int
  words: int = 0  # A TPU's only; they divide K in words.


def tpu(
  rows: int, words: int, columns: int, x_bits: int, w_bits: int
) -> Tiles | None:
  """All of x for a block of rows, as many as fit; None if nothing fits."""
  block_m = min(math.ceil(rows / 8) * 8, 2048)
  row = 2 * 4 * x_bits * math.ceil(words / 128) * 128  # Bytes, held twice.
  while block_m > 8 and block_m * row > VMEM // 4:
    block_m = math.ceil(block_m / 16) * 8
  if block_m * row > VMEM // 4:
    return None
  # Eight rows of words fill a register; else K stays whole.
  steps = [d for d in range(8, words, 8) if words % d == 0]
  for block_n in (512, 128):
    column = 2 * 4 * w_bits * block_n
    fit = [d for d in (*steps, words) if d * column <= VMEM // 4]
    if fit:
      step = max((d for d in fit if d * column <= VMEM // 16), default=fit[0])
      return Tiles(block_m, min(block_n, math.ceil(columns / 128) * 128), step)
  return None


def gpu(columns: int) -> Tiles | None:
  """None if no block of columns divides."""
  found = next((b for b in (128, 64, 32, 16) if columns % b == 0), None)
  return found and Tiles(16, found)
