"""grouped_matmul on a TPU: rows in place, the expert of a tile is prefetched.

The grid runs over blocks of columns and, in each, over the visits of experts to
tiles of rows. An expert's visits follow each other, so that its block of
weights is read once.
"""

import functools
import math

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from lowbit.kernels import grid as grid_lib
from lowbit.kernels import operands, storage
from lowbit.kernels.grouped_matmul import layout, tuned, visits

LANES = 128


def reasons(x, w, group_sizes) -> list[str]:
  """Why the kernel cannot take the arguments."""
  del group_sizes
  op, why = layout.one_expert(w)
  if op is None:
    return why
  if not x.size:
    why.append(f'`x` {x.shape} is empty')
  if unit_of(op) < 16:
    why.append(f'groups of {op.group} are less than 16 codes')
  if not why and tuned.tpu(*x.shape, x.dtype.itemsize, 1, op) is None:
    why.append(f'K={op.size} does not stay in VMEM')
  return why


def unit_of(op: operands.Operands) -> int:
  """Codes of a chunk that share a scale."""
  chunk = op.storage.chunk
  return math.gcd(chunk, op.group) if op.group < op.size else chunk


@functools.partial(jax.jit, static_argnames=('interpret', 'tiles'))
def grouped_matmul(x, w, group_sizes, *, tiles=None, interpret=False):
  """As `reference.grouped_matmul`."""
  one, _ = layout.one_expert(w)
  (t, k), experts, n = x.shape, group_sizes.shape[0], one.columns
  tiles = tiles or tuned.tpu(t, k, x.dtype.itemsize, experts, one)
  bm, bn = tiles.block_m, tiles.block_n
  arrays = _arrays(w)
  column = lambda a: pl.BlockSpec(
    (1, a.shape[1], bn), lambda j, v, tile, expert, *_: (expert[v], 0, j)
  )
  side = pltpu.VMEM((one.scale.shape[0], bn), jnp.float32)
  y = grid_lib.pallas_call(
    functools.partial(_kernel, one, len(arrays)),
    grid=(math.ceil(n / bn), visits.count(t, experts, bm)),
    in_specs=[
      pl.BlockSpec((bm, k), lambda j, v, tile, *_: (tile[v], 0)),
      *map(column, arrays),
    ],
    out_specs=pl.BlockSpec((bm, bn), lambda j, v, tile, *_: (tile[v], j)),
    out_shape=jax.ShapeDtypeStruct((t, n), x.dtype),
    scalars=visits.most(t, experts, bm),
    scratch_shapes=[
      pltpu.VMEM((bm, bn), jnp.float32),
      *[side] * (len(arrays) - 1),
    ],
    compiler_params=pltpu.CompilerParams(
      dimension_semantics=('parallel', 'arbitrary'),
      vmem_limit_bytes=tuned.VMEM + 2**25,
    ),
    interpret=interpret,
    name='grouped_matmul',
  )
  return y(*visits.of_groups(t, group_sizes, bm), x, *arrays)


def _arrays(w) -> list[jax.Array]:
  """Words, scales and zero points, [E, rows, N] each."""

  def of_one(w):
    op = operands.unpacked_zero(operands.take_apart(w))
    scale = op.scale
    if op.tensor_scale is not None:
      scale = operands.decode_scale(scale, op.scale_format) * op.tensor_scale
    return [op.words, scale, *([] if op.zero is None else [op.zero])]

  return jax.vmap(of_one)(w)


def _kernel(op, count, tile_ref, expert_ref, start_ref, end_ref, *refs):
  # x [bm, K]   words [1, bytes, bn]   scale, zero [1, groups, bn]
  # out, sum [bm, bn]   scales, zeros [groups, bn]
  del expert_ref
  x_ref, (words_ref, *side_refs) = refs[0], refs[1 : 1 + count]
  out_ref, sum_ref, *sides = refs[1 + count :]
  v = pl.program_id(1)
  start, end = start_ref[v], end_ref[v]
  before = tile_ref[jnp.maximum(v - 1, 0)]

  @pl.when((v == 0) | (tile_ref[v] != before))
  def _():
    out_ref[...] = jnp.zeros_like(out_ref)

  @pl.when(start < end)
  def _():
    # The scale of the tensor is in the scales, which are floats then.
    fmt = op.scale_format if op.tensor_scale is None else None
    sides[0][...] = operands.decode_scale(side_refs[0][0], fmt)
    if len(sides) > 1:
      sides[1][...] = operands.to_float(side_refs[1][0])
    sum_ref[...] = jnp.zeros_like(sum_ref)
    _product(op, x_ref, words_ref, sides, sum_ref)
    row = jax.lax.broadcasted_iota(jnp.int32, sum_ref.shape, 0)
    row += tile_ref[v] * sum_ref.shape[0]
    mine = (row >= start) & (row < end)
    kept = out_ref[...].astype(jnp.float32)
    out_ref[...] = jnp.where(mine, sum_ref[...], kept).astype(out_ref.dtype)


def _product(op, x_ref, words_ref, sides, sum_ref):
  """Adds x times the weights of an expert to `sum_ref`, chunk by chunk."""
  s = op.storage

  def add(c, first, start, size: int):
    words = words_ref[0, pl.ds(first, s.count(size)), :]
    values = storage.values(storage.unpack(words, s, size), s)
    x = x_ref[:, pl.ds(start, size)]
    sum_ref[...] += _scaled(x, values, op, c, sides)

  def step(c, carry):
    first = pl.multiple_of(c * s.rows, s.rows)
    add(c, first, pl.multiple_of(c * s.chunk, s.chunk), s.chunk)
    return carry

  count, tail = divmod(op.size, s.chunk)
  if count:
    jax.lax.fori_loop(0, count, step, None)
  if tail:
    add(count, count * s.rows, count * s.chunk, tail)


def _scaled(x, values, op, c, sides):
  """x [bm, size] times the values of chunk c, scaled.

  Units of whole lanes scale their products; others, that the matrix unit would
  take one by one, scale the matrix.
  """
  unit, size, parts = unit_of(op), values.shape[0], []
  dot = functools.partial(
    jnp.dot,
    preferred_element_type=jnp.float32,
    precision='highest' if x.dtype == jnp.float32 else None,
  )
  wide = unit % LANES == 0
  for at in range(0, size, unit):
    cut = slice(at, min(at + unit, size))
    code = c * op.storage.chunk + at
    w, row = values[cut], functools.partial(_row, code=code, group=op.group)
    w = w - row(sides[1]) if len(sides) > 1 else w
    if wide:
      parts.append(dot(x[:, cut], w.astype(x.dtype)) * row(sides[0]))
    else:
      parts.append(w * row(sides[0]))
  if wide:
    return functools.reduce(jnp.add, parts)
  return dot(x, jnp.concatenate(parts, axis=0).astype(x.dtype))


def _row(ref, code, group: int):
  """The row [1, bn] of the group that `code` lies in; it may be traced."""
  if ref.shape[0] == 1:
    return ref[...]
  if isinstance(code, int):
    return ref[code // group : code // group + 1, :]
  return ref[pl.ds(jax.lax.div(code, jnp.int32(group)), 1), :]
