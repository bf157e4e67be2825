"""dequant_matmul on a TPU: codes are decoded in VMEM, chunk by chunk.

The grid runs over blocks of the output and of K. In a block, each step takes
one chunk of codes, makes a [chunk, block_n] matrix of it, and multiplies.
"""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from lowbit.kernels import operands, storage
from lowbit.kernels.dequant_matmul import tuned


def reasons(rows: int, op: operands.Operands) -> list[str]:
  """Why no tile fits, if none does."""
  del rows
  chunk, found = op.storage.chunk, []
  if op.size < chunk:
    found.append(f'K={op.size} is less than a chunk of {chunk} codes')
  divides = op.group % chunk == 0 or (chunk % op.group == 0)
  if op.scale.shape[0] > 1 and not (divides and op.group % 8 == 0):
    found.append(
      f'groups of {op.group} and chunks of {chunk} codes do not divide each '
      'other'
    )
  return found


def dequant_matmul(
  x: jax.Array,
  op: operands.Operands,
  *,
  out_dtype,
  tiles: tuned.TpuTiles | None = None,
  precision=None,
  interpret: bool = False,
) -> jax.Array:
  """x [M, K] times the operands of a matrix [K, N], K in whole chunks."""
  tiles = tiles or tuned.tpu(x.shape[0], x.dtype.itemsize, op)
  return _call(x, op, np.dtype(out_dtype), tiles, precision, interpret)


@functools.partial(jax.jit, static_argnums=(2, 3, 4, 5))
def _call(x, op, out_dtype, tiles, precision, interpret):
  (m, size), n = x.shape, op.columns
  bm, bn, bk = tiles.block_m, tiles.block_n, tiles.block_k
  s, grouped = op.storage, op.scale.shape[0] > 1
  grid = (math.ceil(m / bm), math.ceil(n / bn), size // bk)
  group_rows = bk // op.group if grouped else 1
  side = pl.BlockSpec(
    (max(group_rows, 1), bn),
    lambda i, j, k: (k if grouped else 0, j),
  )
  inputs = {'x': x, 'words': op.words, 'scale': op.scale}
  specs = {
    'x': pl.BlockSpec((bm, bk), lambda i, j, k: (i, k)),
    'words': pl.BlockSpec((bk // s.chunk * s.rows, bn), lambda i, j, k: (k, j)),
    'scale': side,
  }
  if op.zero is not None:
    inputs['zero'], specs['zero'] = op.zero, side
  if s.table is not None and len(s.table) > 4:
    table = _lanes(s.table)
    inputs['table'] = table
    specs['table'] = pl.BlockSpec(table.shape, lambda i, j, k: (0, 0))
  if op.tensor_scale is not None:
    inputs['tensor_scale'] = op.tensor_scale
    specs['tensor_scale'] = pl.BlockSpec(memory_space=pltpu.SMEM)
  names = tuple(inputs)
  f32 = lambda *shape: pltpu.VMEM(shape, jnp.float32)
  body = functools.partial(
    _kernel,
    names,
    dataclasses.replace(op, words=None, scale=None, zero=None),
    grouped,
    precision,
  )
  out = pl.BlockSpec((bm, bn), lambda i, j, k: (i, j))
  return pl.pallas_call(
    body,
    grid=grid,
    in_specs=list(specs.values()),
    out_specs=out,
    out_shape=jax.ShapeDtypeStruct((m, n), out_dtype),
    scratch_shapes=[f32(bm, bn), f32(max(group_rows, 8), bn)],
    compiler_params=pltpu.CompilerParams(
      dimension_semantics=('parallel', 'parallel', 'arbitrary'),
      vmem_limit_bytes=100 * 2**20,
    ),
    interpret=interpret,
    name='dequant_matmul',
  )(*inputs.values())


def _kernel(names, op, grouped, precision, *refs):
  # x [bm, bk]   words [bytes, bn]   scale, zero [groups, bn]   out [bm, bn]
  ref = dict(zip((*names, 'out', 'acc', 'steps'), refs))
  s, k = op.storage, pl.program_id(2)
  count, bk = ref['steps'].shape[0], ref['x'].shape[1]

  @pl.when(k == 0)
  def _():
    ref['acc'][...] = jnp.zeros_like(ref['acc'])

  scales = operands.decode_scale(ref['scale'][...], op.scale_format)
  ref['steps'][: scales.shape[0]] = scales
  del count

  def step(c, carry):
    start = pl.multiple_of(c * s.rows, s.rows)
    words = ref['words'][pl.ds(start, s.rows), :]
    w = storage.values(storage.unpack(words, s), s)
    at = pl.multiple_of(c * s.chunk, s.chunk)
    x = ref['x'][:, pl.ds(at, s.chunk)]
    y = jnp.dot(
      x,
      w.astype(x.dtype),
      preferred_element_type=jnp.float32,
      precision=precision,
    )
    ref['acc'][...] += y
    return carry

  jax.lax.fori_loop(0, bk // s.chunk, step, None)

  @pl.when(k == pl.num_programs(2) - 1)
  def _():
    y = ref['acc'][...]
    if not grouped:
      y = y * ref['steps'][:1]
    ref['out'][...] = y.astype(ref['out'].dtype)


def _lanes(table) -> jax.Array:
  return jnp.asarray(table).reshape(1, -1)
