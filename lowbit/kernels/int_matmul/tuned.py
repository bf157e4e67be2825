"""Tile sizes of int_matmul: a table of what was measured, else a rule."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Tiles:
  """A block of the output, and how much of K is resident with it."""

  block_m: int
  block_n: int
  chunks: int = 1  # Of K in one step; a TPU's only.
  num_warps: int = 4  # A GPU's only.
  num_stages: int = 3


# Measured winners go here: (rows, K, N, bits) -> tiles. None was measured yet.
TPU: dict[tuple[int, int, int, float], Tiles] = {}
GPU: dict[tuple[int, int, int, float], Tiles] = {}
LEAST_ROWS = {'tpu': 32, 'gpu': 16}  # int8 tiles; a tensor core's rows.


def round_up(n: int, multiple: int) -> int:
  """The least multiple that is at least n."""
  return -(-n // multiple) * multiple


def tpu(rows: int, chunks: int, columns: int, bits: float) -> Tiles:
  """Tiles for [rows, K] by [K, columns], K in `chunks` chunks."""
  if found := TPU.get((rows, chunks, columns, bits)):
    return found
  # Large blocks: weights are read once a block of rows, and x of columns.
  block_m = min(round_up(rows, 32), 1024)
  block_n = 512 if rows <= 256 else 1024
  most = 8 if block_m <= 128 else 4
  step = max(d for d in range(1, most + 1) if chunks % d == 0)
  return Tiles(block_m, min(block_n, round_up(columns, 128)), step)


def gpu(rows: int, chunks: int, columns: int, bits: float) -> Tiles | None:
  """Tiles for a GPU, or None if no block of columns divides."""
  if found := GPU.get((rows, chunks, columns, bits)):
    return found
  block_m = 16
  while block_m < min(rows, 128):
    block_m *= 2
  wide = (128, 64, 32, 16) if rows > 32 else (64, 32, 16)
  block_n = next((b for b in wide if columns % b == 0), None)
  if block_n is None:
    return None
  return Tiles(block_m, block_n, num_warps=8 if block_m == 128 else 4)
