"""Large parameters, a cache-sized slice at a time.

Eight-bit moments are read, moved and stored element by element, but for one
maximum a block. Compiled for a CPU over a whole parameter, that becomes several
passes over memory with float32 intermediates as large as the state that was to
be saved. Over slices of whole blocks the intermediates stay in the cache. On
accelerators, whose compilers fuse this and whose loops are slow, nothing is
sliced.
"""

import dataclasses

import jax
import jax.numpy as jnp

from lowbit import quantize
from lowbit.optim import storage

SLICE = 2**18  # Elements; 1 MiB in float32.


def run(step, storages, g, stored):
  """step(g, *stored), slice by slice where that is the same and is faster.

  Args:
    step: (g, *stored) -> (direction like g, *stored), elementwise but for
      blocks.
    storages: A storage for each of `stored`.
    g: Gradient of any shape.
    stored: Moments of one parameter.
  """
  if g.size < 2 * SLICE or not all(map(_slices, storages, stored)):
    return step(g, *stored)
  blocks = [kind.spec.block for kind in storages]
  return jax.lax.platform_dependent(
    g, *stored, cpu=lambda *args: _sliced(step, blocks, *args), default=step
  )


def _slices(kind, stored) -> bool:
  """Whether slices of the codes have scales of their own."""
  if not (isinstance(kind, storage.Flat) and kind.is_plain):
    return False
  block = kind.spec.block
  is_whole = isinstance(block, int) and SLICE % block == 0
  return is_whole and isinstance(stored, quantize.QTensor)


def _sliced(step, blocks, g, *stored):
  count = g.size // SLICE
  whole = count * SLICE
  flat = g.reshape(-1)
  head = (flat[:whole], *map(lambda q, b: _head(q, b, whole), stored, blocks))
  head = jax.tree.map(lambda a: a.reshape(count, -1), head)
  result = jax.lax.map(lambda slices: step(*slices), head)
  result = jax.tree.map(lambda a: a.reshape(-1), result)
  if whole < g.size:
    tail = map(lambda q, b: _tail(q, b, whole), stored, blocks)
    rest = step(flat[whole:], *tail)
    join = lambda a, b: jnp.concatenate([a, b])
    result = jax.tree.map(join, tuple(result), tuple(rest))
  direction, *kept = result
  return direction.reshape(g.shape), *kept


def _head(q: quantize.QTensor, block: int, size: int) -> quantize.QTensor:
  scale = q.scale[: size // block]
  return dataclasses.replace(q, codes=q.codes[:size], scale=scale)


def _tail(q: quantize.QTensor, block: int, size: int) -> quantize.QTensor:
  scale = q.scale[size // block :]
  return dataclasses.replace(q, codes=q.codes[size:], scale=scale)
