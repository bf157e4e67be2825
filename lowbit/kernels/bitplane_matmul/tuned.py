"""Tile sizes of the bit planes: a rule, none was measured yet."""

import dataclasses

LEAST_WORDS = 8  # Of K in a step on a TPU: the sublanes of a register.


@dataclasses.dataclass(frozen=True)
class Tiles:
  """A block of the output."""

  block_m: int
  block_n: int


TPU = Tiles(8, 512)


def gpu(columns: int) -> Tiles | None:
  """None if no block of columns divides."""
  found = next((b for b in (128, 64, 32, 16) if columns % b == 0), None)
  return found and Tiles(16, found)
