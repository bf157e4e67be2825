"""Tile sizes of the lookups: a rule, none was measured yet."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Tiles:
  """A block of the output."""

  block_m: int
  block_n: int
  segments: int = 1  # Of K in one step of a TPU.


def tpu(rows: int, segments: int) -> Tiles:
  """Eight rows are a register's sublanes: lookups are vector selects."""
  step = max(d for d in range(1, 9) if segments % d == 0)
  return Tiles(8 if rows <= 8 else 16, 256, step)


def gpu(columns: int) -> Tiles | None:
  """None if no block of columns divides."""
  found = next((b for b in (128, 64, 32, 16) if columns % b == 0), None)
  return found and Tiles(8, found)
