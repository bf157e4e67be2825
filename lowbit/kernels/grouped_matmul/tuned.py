"""Tile sizes of grouped_matmul: a rule, none was measured yet."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Tiles:
  """Rows and columns of a block; a block of rows belongs to one expert."""

  block_m: int
  block_n: int


def tpu(rows: int, experts: int) -> Tiles:
  """About the rows of one expert, between 16 and 128."""
  return Tiles(_rows(rows, experts), 256)


def gpu(rows: int, experts: int, columns: int) -> Tiles | None:
  """None if no block of columns divides."""
  block_n = next((b for b in (128, 64, 32, 16) if columns % b == 0), None)
  return block_n and Tiles(min(_rows(rows, experts), 64), block_n)


def _rows(rows: int, experts: int) -> int:
  block = 16
  while block < 128 and block * experts < rows:
    block *= 2
  return block
