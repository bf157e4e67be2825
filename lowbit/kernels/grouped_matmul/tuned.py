"""Tile sizes of grouped_matmul: a rule, none was measured yet."""

import dataclasses
import math

from lowbit.kernels import operands

VMEM = 64 * 2**20  # Bytes of a TPU core that the blocks may take.


@dataclasses.dataclass(frozen=True)
class Tiles:
  """Rows and columns of a block; a block of rows belongs to one expert."""

  block_m: int
  block_n: int


def tpu(
  rows: int, size: int, itemsize: int, experts: int, op: operands.Operands
) -> Tiles | None:
  """About the rows of one expert, 16 to 256; all of K stays resident.

  Blocks of columns are wide, for x is read once for each; None if not even
  narrow ones fit.
  """
  block_m = _rows(rows, experts, 256)
  while block_m > 16 and 2 * block_m * size * itemsize > VMEM // 4:
    block_m //= 2
  column = 2 * (op.words.shape[0] + 3 * 4 * op.scale.shape[0])
  for block_n in (1024, 512, 256, 128):
    if block_n * column <= VMEM // 4:
      return Tiles(block_m, min(block_n, math.ceil(op.columns / 128) * 128))
  return None


def gpu(rows: int, experts: int, columns: int) -> Tiles | None:
  """None if no block of columns divides."""
  block_n = next((b for b in (128, 64, 32, 16) if columns % b == 0), None)
  return block_n and Tiles(_rows(rows, experts, 64), block_n)


def _rows(rows: int, experts: int, most: int) -> int:
  block = 16
  while block < most and block * experts < rows:
    block *= 2
  return block
