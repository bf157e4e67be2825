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
  """Codes are overwritten in place; directions and scales get new buffers.

  What is written in place may be read once a slice only, or XLA copies it whole
  for each slice: codes are, by the look-up of their values.
  """
  flat = g.reshape(-1)
  scales = [q.scale for q in stored]

  def body(i, carry):
    at = lambda a, n: jax.lax.dynamic_slice(a, (i * n,), (n,))
    put = lambda a, new: jax.lax.dynamic_update_slice(a, new, (i * new.size,))
    directions, codes, news = carry
    parts = [
      dataclasses.replace(q, codes=at(c, SLICE), scale=at(s, SLICE // block))
      for q, c, s, block in zip(stored, codes, scales, blocks)
    ]
    direction, *kept = step(at(flat, SLICE), *parts)
    return (
      put(directions, direction),
      [put(c, q.codes) for c, q in zip(codes, kept)],
      [put(s, q.scale) for s, q in zip(news, kept)],
    )

  # Filled with what is at hand: parameters of one shape would share zeros, and
  # each would copy them.
  fill = lambda a, s: jnp.full(a.shape, s[0], a.dtype)
  start = (
    fill(flat, scales[0]),
    [q.codes for q in stored],
    [fill(s, s) for s in scales],
  )
  count = g.size // SLICE
  done = jax.lax.fori_loop(0, count, body, start)
  if count * SLICE < g.size:
    done = _rest(step, blocks, count * SLICE, flat, stored, done)
  directions, codes, news = done
  kept = [
    dataclasses.replace(q, codes=c, scale=s)
    for q, c, s in zip(stored, codes, news)
  ]
  return directions.reshape(g.shape), *kept


def _rest(step, blocks, whole, flat, stored, done):
  """The elements from `whole` on, which are less than a slice."""
  directions, codes, news = done
  parts = [
    dataclasses.replace(q, codes=c[whole:], scale=q.scale[whole // block :])
    for q, c, block in zip(stored, codes, blocks)
  ]
  direction, *kept = step(flat[whole:], *parts)
  end = lambda a, new: a.at[a.size - new.size :].set(new)
  return (
    end(directions, direction),
    [end(c, q.codes) for c, q in zip(codes, kept)],
    [end(s, q.scale) for s, q in zip(news, kept)],
  )
