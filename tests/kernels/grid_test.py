"""The bytes that a grid moves, against a walk through it."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lowbit.kernels import grid


def walk(size, block, array):
  last, moved = None, 0
  for step in itertools.product(*map(range, size)):
    at = block.index(*step)
    if at != last:
      inside = 1
      for a, b, n in zip(at, block.shape, array.shape):
        inside *= min(max(n - a * b, 0), b)
      moved += inside
    last = at
  return moved * array.dtype.itemsize


@pytest.mark.parametrize(
  'index',
  [
    lambda i, j, k: (i, k),
    lambda i, j, k: (k, j),
    lambda i, j, k: (0, j),
    lambda i, j, k: (i, j),
  ],
)
@pytest.mark.parametrize('size', [(2, 3, 4), (1, 3, 1), (4, 1, 2)])
def test_moved_bytes(index, size):
  block = grid.Block((8, 16), index)
  array = jax.ShapeDtypeStruct((27, 45), jnp.bfloat16)
  assert block.moved(size, array) == walk(size, block, array)


def test_bytes_of_blocks_that_scalars_choose():
  """Blocks 2, 2, 0 of the rows, all columns of each, in two columns of them."""
  of = np.array([2, 2, 0])
  block = grid.Block((8, 16), lambda j, v: (of[v], j))
  array = jax.ShapeDtypeStruct((27, 32), jnp.float32)
  assert block.moved((2, 3), array) == walk((2, 3), block, array)
  assert block.moved((2, 3), array) == 2 * 2 * 8 * 16 * 4
