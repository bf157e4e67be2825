"""One segment of lookups, as both kernels do it.

Neither a TPU nor Triton has an instruction that looks up one of 8 entries that
differ from row to row; a tree of seven selects on the bits of the index does
it, at the width of the vector unit. So the number of steps is linear in bits,
as the papers have it; that it beats a matrix unit is not claimed.
"""

import jax.numpy as jnp

from lowbit.kernels.lut_matmul import layout


def segment(entry, words, bits: int, kind):
  """sum_i 2^i of the 16 lookups of each plane: [bm, bn] of `kind`.

  Args:
    entry: (table, index) -> [bm, 1], in 0..15 and 0..7.
    words: (plane, byte) -> int32 [1, bn], in 0..bits - 1 and 0..7.
    bits: Number of planes.
    kind: float32 or int32.
  """
  total = None
  for t in range(16):
    options = [entry(t, e).astype(kind) for e in range(layout.ENTRIES)]
    for i in range(bits):
      index = words(i, t // 2) >> (4 * (t % 2))
      found = look_up(options, index) * kind(2**i)
      total = found if total is None else total + found
  return total


def look_up(options, index):
  """options[index & 7], negated if bit 3 is set."""
  for bit in range(3):
    odd = (index >> bit) & 1 == 1
    options = [
      jnp.where(odd, b, a) for a, b in zip(options[::2], options[1::2])
    ]
  return jnp.where((index >> 3) & 1 == 1, -options[0], options[0])
