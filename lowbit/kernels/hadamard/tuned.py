"""Rows of a block: a rule, none was measured yet."""

TPU_BYTES = 4 * 2**20  # Of a block in float32.
GPU_MOST = 16384  # Elements of a row.


def tpu(columns: int) -> int:
  """Rows of a block on a TPU."""
  rows = 256
  while rows > 32 and rows * columns * 4 > TPU_BYTES:
    rows //= 2
  return rows
