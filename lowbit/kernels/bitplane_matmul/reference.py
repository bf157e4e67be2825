"""The meaning: the numbers themselves, multiplied in int32."""

import jax

from lowbit.kernels.bitplane_matmul import planes


def bitplane_matmul(x: planes.Planes, w: planes.Planes) -> jax.Array:
  """int32 [M, N]."""
  return planes.unpack_planes(x) @ planes.unpack_planes(w)


def count_operations(x_bits: int, w_bits: int, k: int) -> dict[str, int]:
  """Word operations of one output: ANDs, popcounts, and the MACs replaced."""
  words = -(-k // planes.WORD)
  pairs = x_bits * w_bits * words
  return {'ands': pairs, 'popcounts': pairs, 'macs': k}
