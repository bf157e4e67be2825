"""Rows of a block: a rule, none was measured yet."""

VMEM = 8 * 2**20  # Bytes of a block in float32.


def tpu(columns: int) -> int:
  """Rows of a block on a TPU: 32, an int8 tile, or more while they fit."""
  rows = 256
  while rows > 32 and rows * columns * 4 > VMEM:
    rows //= 2
  return rows


GPU_ROWS = 1  # A row to a program: K elements in its registers.
GPU_MOST = 16384  # Elements of a row.
