"""Tile sizes of dequant_matmul: a table of what was measured, else a rule."""

import dataclasses
import math

from lowbit.kernels import operands

VMEM = 64 * 2**20  # Bytes of a TPU core that the blocks may take.


@dataclasses.dataclass(frozen=True)
class TpuTiles:
  """A block of the output, and how much of K is resident with it."""

  block_m: int
  block_n: int
  block_k: int  # Codes; whole chunks.


@dataclasses.dataclass(frozen=True)
class GpuTiles:
  """A block of the output, a step along K, and how the grid is filled."""

  block_m: int  # At least 16, what a tensor core takes.
  block_n: int
  split_k: int  # Programs that share one block of the output.
  num_warps: int = 4
  num_stages: int = 3


# Measured winners go here: (rows, K, N, bits) -> tiles. None was measured yet.
TPU: dict[tuple[int, int, int, float], TpuTiles] = {}
GPU: dict[tuple[int, int, int, float], GpuTiles] = {}


def round_up(n: int, multiple: int) -> int:
  """The least multiple that is at least n."""
  return -(-n // multiple) * multiple


def _key(rows: int, op: operands.Operands):
  return rows, op.size, op.columns, op.storage.format.storage_bits


def tpu(rows: int, itemsize: int, op: operands.Operands) -> TpuTiles | None:
  """Tiles for x [rows, K] of `itemsize` bytes.

  x stays resident for a whole row of blocks, so that it is read once, and the
  rows are as many as fit, so that the weights are read once, too. None if
  nothing fits.
  """
  if found := TPU.get(_key(rows, op)):
    return found
  size = op.size
  sublanes = 32 // itemsize
  block_m = min(round_up(rows, sublanes), 2048)
  while block_m > 256 and 2 * block_m * size * itemsize > VMEM // 2:
    block_m = round_up(block_m // 2, sublanes)
  # Zero points of a block of columns fill whole lanes.
  block_n = {0: 256, 4: 256}.get(op.zero_bits, 1024)
  block_k = size
  while 2 * block_m * block_k * itemsize > VMEM // 2:
    block_k = _shorter(block_k, size, op.storage.chunk)
    if block_k is None:
      return None
  return TpuTiles(block_m, block_n, block_k)


def _shorter(length: int, size: int, chunk: int) -> int | None:
  """The next shorter part of `size` in whole chunks that divides it."""
  if size % chunk:
    return None
  chunks = size // chunk
  shorter = [d for d in range(1, length // chunk) if chunks % d == 0]
  return max(shorter) * chunk if shorter else None


def gpu(rows: int, itemsize: int, op: operands.Operands) -> GpuTiles:
  """Tiles for x [rows, K]: enough programs to fill 132 SMs twice."""
  if found := GPU.get(_key(rows, op)):
    return found
  block_m = 16
  while block_m < min(rows, 64 if itemsize <= 2 else 32):
    block_m *= 2
  # What is in flight must fit the shared memory, and on Blackwell the tensor
  # memory: ternary chunks are ten products long.
  is_small = block_m <= 32
  is_wide = not (is_small or itemsize > 2 or op.storage.ternary)
  block_n = 128 if is_wide else 64
  programs = math.ceil(rows / block_m) * math.ceil(op.columns / block_n)
  chunks = op.size // op.storage.chunk
  split_k = 1
  while (
    rows <= 32 and programs * split_k < 264 and chunks // (2 * split_k) >= 2
  ):
    split_k *= 2
  warps, stages = 4 if is_small else 8, 3 if is_small and itemsize <= 2 else 2
  return GpuTiles(block_m, block_n, split_k, warps, stages)
