"""lut_matmul on a TPU: tables lie in lanes, 16 of 8 entries to a register.

Tables are eight times as large as x, and are made of it in VMEM: a product with
signs, 64 activations at a time. Weights are read as they are stored; the rows
of a block are as many as fit, so that they are read few times.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from lowbit.kernels import grid as grid_lib
from lowbit.kernels.lut_matmul import layout, select, tuned

SLAB = 256  # Codes of a step: 32 bytes of indices are a tile.
SUBLANES = 8  # Rows of a register.
LANES = 16 * layout.ENTRIES  # Entries of a segment.


def reasons(x, w: layout.LutWeight) -> list[str]:
  """Why the kernel cannot take the arguments."""
  if not x.shape[1] or _tiles(x, w) is None:
    return [f'K={x.shape[1]} channels are none, or do not stay in VMEM']
  return []


def _tiles(x, w) -> tuned.Tiles | None:
  return tuned.tpu(*x.shape, w.shape[1], w.bits, x.dtype.itemsize)


@functools.partial(jax.jit, static_argnames=('quantized', 'tiles', 'interpret'))
def lut_matmul(
  x, w: layout.LutWeight, *, quantized: bool, tiles=None, interpret=False
) -> jax.Array:
  """As `reference.lut_matmul`, of x [M, K] itself: [M, N] in its dtype."""
  dtype = x.dtype
  if dtype not in (jnp.float32, jnp.bfloat16):
    x = x.astype(jnp.float32)
  (m, k), n = x.shape, w.shape[1]
  tiles = tiles or _tiles(x, w)
  bm, bn = tiles.block_m, tiles.block_n
  column = lambda a: pl.BlockSpec((a.shape[0], bn), lambda i, j: (0, j))
  words = pl.BlockSpec((*w.words.shape[:2], bn), lambda i, j: (0, 0, j))
  y = grid_lib.pallas_call(
    functools.partial(_kernel, quantized),
    grid=(math.ceil(m / bm), math.ceil(n / bn)),
    in_specs=[
      pl.BlockSpec((bm, k), lambda i, j: (i, 0)),
      words,
      column(w.scale),
      column(w.offset),
    ],
    out_specs=pl.BlockSpec((bm, bn), lambda i, j: (i, j)),
    out_shape=jax.ShapeDtypeStruct((m, n), x.dtype),
    scratch_shapes=[
      pltpu.VMEM((bm, bn), jnp.float32),
      pltpu.VMEM((bm, SLAB // layout.SEGMENT * LANES), jnp.float32),
      pltpu.VMEM((w.bits, SLAB // 8, bn), jnp.int32),
    ],
    compiler_params=pltpu.CompilerParams(
      dimension_semantics=('parallel', 'parallel'),
      vmem_limit_bytes=tuned.VMEM,
    ),
    interpret=interpret,
    name='lut_matmul',
  )(x, w.words, w.scale, w.offset)
  return y.astype(dtype)


def _kernel(quantized, x_ref, words_ref, scale_ref, offset_ref, out_ref, *rest):
  # x [bm, K]   words [bits, K' / 8, bn]   scale, offset [segments or 1, bn]
  # acc [bm, bn]   table [bm, 512]   planes [bits, 32, bn]
  acc_ref, table_ref, planes_ref = rest
  acc_ref[...] = jnp.zeros_like(acc_ref)
  signs = _signs()

  def build(first, size: int) -> int:
    """Tables of `size` activations; the number of their segments."""
    x = x_ref[:, pl.ds(first, size)].astype(jnp.float32)
    segments = math.ceil(size / layout.SEGMENT)
    for s in range(segments):
      part = x[:, s * layout.SEGMENT : (s + 1) * layout.SEGMENT]
      table = jnp.dot(
        part,
        signs[: part.shape[1]],
        preferred_element_type=jnp.float32,
        precision='highest',
      )
      at = _divide(first, layout.SEGMENT) + s
      acc_ref[...] -= _total(table) * _row(offset_ref, at)
      table = _rounded(table) if quantized else table
      table_ref[:, s * LANES : (s + 1) * LANES] = table
    for i in range(words_ref.shape[0]):
      rows = 8 * segments
      words = words_ref[i, pl.ds(_divide(first, 8), rows), :]
      planes_ref[i, :rows, :] = words.astype(jnp.int32)
    return segments

  def slab(first, size: int) -> None:
    segments = build(first, size)

    def step(t, carry):
      r, s = _divide(t, segments), jax.lax.rem(t, jnp.int32(segments))
      mine = pl.ds(pl.multiple_of(r * SUBLANES, SUBLANES), SUBLANES)
      lanes = pl.ds(pl.multiple_of(s * LANES, LANES), LANES)
      eight = pl.ds(pl.multiple_of(s * 8, 8), 8)
      found = _look_up(table_ref[mine, lanes], planes_ref, eight)
      at = _divide(first, layout.SEGMENT) + s
      acc_ref[mine, :] += found * _row(scale_ref, at)
      return carry

    count = acc_ref.shape[0] // SUBLANES * segments
    jax.lax.fori_loop(0, count, step, None)

  count, tail = divmod(x_ref.shape[1], SLAB)

  def whole(g, carry):
    slab(pl.multiple_of(g * SLAB, SLAB), SLAB)
    return carry

  if count:
    jax.lax.fori_loop(0, count, whole, None)
  if tail:
    slab(count * SLAB, tail)
  out_ref[...] = acc_ref[...].astype(out_ref.dtype)


def _look_up(table, planes_ref, rows):
  """Lookups of one segment: [8, 128] tables -> [8, bn]."""
  bits = planes_ref.shape[0]
  planes = [planes_ref[i, rows, :] for i in range(bits)]

  def entry(t, e):
    at = layout.ENTRIES * t + e
    return table[:, at : at + 1]

  words = lambda i, b: planes[i][b : b + 1]
  return select.segment(entry, words, bits, jnp.float32)


def _signs():
  """[64, 128]: the entries of 16 tables, `layout.signs` along the diagonal."""
  shape = (layout.SEGMENT, LANES)
  k = jax.lax.broadcasted_iota(jnp.int32, shape, 0)
  lane = jax.lax.broadcasted_iota(jnp.int32, shape, 1)
  j = k & 3
  bit = jnp.where(j == 3, 0, (lane >> j) & 1)
  mine = k >> 2 == lane >> 3
  return jnp.where(mine, 2 * bit - 1, 0).astype(jnp.float32)


def _total(table):
  """Sum of a segment's activations, [bm, 1]: the first entries, negated."""
  lane = jax.lax.broadcasted_iota(jnp.int32, table.shape, 1)
  first = jnp.where(lane & (layout.ENTRIES - 1) == 0, table, np.float32(0))
  return -jnp.sum(first, axis=1, keepdims=True)


def _rounded(table):
  """What `layout.quantize_tables` leaves of the tables of a segment."""
  largest = jnp.max(jnp.abs(table), axis=1, keepdims=True)
  scale = jnp.where(largest > 0, largest / np.float32(127), np.float32(1))
  return jnp.rint(table / scale) * scale


def _divide(x, y: int):
  return x // y if isinstance(x, int) else jax.lax.div(x, jnp.int32(y))


def _row(ref, at):
  """Row `at` of [segments, bn], or the only one: [1, bn]."""
  return ref[...] if ref.shape[0] == 1 else ref[pl.ds(at, 1), :]
