"""Tile sizes of the lookups: a rule, none was measured yet."""

import dataclasses
import math

VMEM = 64 * 2**20  # Bytes of a TPU core that the blocks may take.


@dataclasses.dataclass(frozen=True)
class Tiles:
  """A block of the output; all of K is resident with it."""

  block_m: int
  block_n: int


def tpu(
  rows: int, size: int, columns: int, bits: int, itemsize: int
) -> Tiles | None:
  """Tiles for x [rows, size] of `itemsize` bytes by weights of `bits`.

  Blocks are held twice; None if nothing fits.
  """
  block_m, row = min(math.ceil(rows / 16) * 16, 2048), 2 * itemsize * size
  while block_m > 16 and block_m * row > VMEM // 2:
    block_m = math.ceil(block_m / 32) * 16
  for block_n in (256, 128):
    column = 2 * block_n * (bits * size // 8 + 2 * 4 * size // 64)
    if block_m * row <= VMEM // 2 and column <= VMEM // 4:
      return Tiles(block_m, min(block_n, math.ceil(columns / 128) * 128))
  return None


def gpu(columns: int) -> Tiles | None:
  """None if no block of columns divides."""
  found = next((b for b in (128, 64, 32, 16) if columns % b == 0), None)
  return found and Tiles(8, found)
