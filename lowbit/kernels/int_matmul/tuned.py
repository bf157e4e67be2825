"""Tile sizes of int_matmul: a table of what was measured, else a rule."""

import dataclasses
import math

from lowbit.kernels import storage

VMEM = 64 * 2**20  # Bytes of a TPU core that the blocks may take.


@dataclasses.dataclass(frozen=True)
class Tiles:
  """A block of the output, and how much of K is resident with it."""

  block_m: int
  block_n: int
  chunks: int = 1  # Of K in one step, all if the last is no whole one; a TPU's.
  num_warps: int = 4  # A GPU's only.
  num_stages: int = 3


# Measured winners go here: (rows, K, N, bits) -> tiles. None was measured yet.
TPU: dict[tuple[int, int, int, float], Tiles] = {}
GPU: dict[tuple[int, int, int, float], Tiles] = {}
LEAST_ROWS = {'tpu': 32, 'gpu': 16}  # int8 tiles; a tensor core's rows.


def round_up(n: int, multiple: int) -> int:
  """The least multiple that is at least n."""
  return -(-n // multiple) * multiple


def tpu(
  rows: int,
  sizes: list[int],
  columns: int,
  stored: list[storage.Storage],
  x_bytes: int = 2,
) -> Tiles | None:
  """Tiles for parts [rows, size] by [size, columns], weights as `stored`.

  All of x stays resident for a block of rows, so that it is read once; the
  rows are as many as fit, so that the weights are read few times. None if
  nothing fits. `x_bytes` are held for an element of x.
  """
  first, bits = stored[0], stored[0].format.storage_bits
  if found := TPU.get((rows, sizes[0], columns, bits)):
    return found
  block_m, of_x = min(round_up(rows, 32), 2048), x_bytes * sum(sizes)
  while block_m > 32 and block_m * of_x > VMEM * 5 // 8:
    block_m = round_up(block_m // 2, 32)
  if block_m * of_x > VMEM * 5 // 8:
    return None
  chunks = math.ceil(sizes[0] / first.chunk)
  # A last chunk that is not whole comes with all others.
  one_step = sizes[0] % first.chunk > 0
  steps = [
    d
    for d in range(1, chunks + 1)
    if chunks % d == 0 and d >= one_step * chunks
  ]
  rest = sum(s.count(n) for s, n in zip(stored[1:], sizes[1:]))
  for block_n in (512, 256, 128):
    held = lambda step, n=block_n: 2 * n * (first.rows * step + rest)
    fit = [d for d in steps if held(d) <= VMEM // 4]
    if fit:
      step = max((d for d in fit if held(d) <= VMEM // 16), default=fit[0])
      return Tiles(block_m, min(block_n, round_up(columns, 128)), step)
  return None


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
