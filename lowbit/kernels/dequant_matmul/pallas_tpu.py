"""dequant_matmul on a TPU: codes are decoded in VMEM, chunk by chunk.

The grid runs over blocks of the output and of K. In a block, each step takes
one chunk of codes, makes a [chunk, block_n] matrix of it, and multiplies.
Groups of at least 128 codes scale the products; smaller ones, that would leave
the matrix unit half empty, scale the matrix.
"""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from lowbit.kernels import grid as grid_lib
from lowbit.kernels import operands, storage
from lowbit.kernels.dequant_matmul import tuned

LANES = 128
SELECTS = 8  # Longer tables are looked up, shorter ones selected from.


def reasons(x, op: operands.Operands) -> list[str]:
  """Why no tile fits, if none does."""
  chunk, found = op.storage.chunk, []
  divides = op.group % chunk == 0 or chunk % op.group == 0
  if op.grouped and not (divides and op.group % 8 == 0):
    found.append(
      f'groups of {op.group} and chunks of {chunk} codes do not divide each '
      'other, or groups are no multiple of 8'
    )
  if tuned.tpu(x.shape[0], x.dtype.itemsize, op) is None:
    found.append(
      f'K={op.size} is too long to be resident, and no whole number of chunks '
      f'of {chunk} codes'
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
  """x [M, K] times the operands of a matrix [K, N]."""
  tiles = tiles or tuned.tpu(x.shape[0], x.dtype.itemsize, op)
  return _call(x, op, np.dtype(out_dtype), tiles, precision, interpret)


@functools.partial(jax.jit, static_argnums=(2, 3, 4, 5))
def _call(x, op, out_dtype, tiles, precision, interpret):
  (m, size), n = x.shape, op.columns
  bm, bn, bk = tiles.block_m, tiles.block_n, tiles.block_k
  grid = (math.ceil(m / bm), math.ceil(n / bn), size // bk)
  out = jax.ShapeDtypeStruct((m, n), out_dtype)
  arrays = {'x': x, **_arrays(op)}
  blocks = _blocks(op, tiles)
  per = _per_chunk(op)
  side = pltpu.VMEM((math.ceil(op.scale.shape[0] / per), per, bn), jnp.float32)
  scratch = [pltpu.VMEM((bm, bn), jnp.float32), side]
  scratch += [side] if op.zero is not None else []
  return pl.pallas_call(
    functools.partial(_kernel, tuple(arrays), op.bare(), precision),
    grid=grid,
    in_specs=[blocks[name].spec for name in arrays],
    out_specs=blocks['out'].spec,
    out_shape=out,
    scratch_shapes=scratch,
    cost_estimate=grid_lib.cost(
      grid,
      [(blocks[k], a) for k, a in {**arrays, 'out': out}.items()],
      flops=2 * m * size * n,
    ),
    compiler_params=pltpu.CompilerParams(
      dimension_semantics=('parallel', 'parallel', 'arbitrary'),
      vmem_limit_bytes=tuned.VMEM,
    ),
    interpret=interpret,
    name='dequant_matmul',
  )(*arrays.values())


def _per_chunk(op) -> int:
  """Groups that begin in one chunk."""
  return max(op.storage.chunk // op.group, 1) if op.grouped else 1


def _arrays(op: operands.Operands) -> dict:
  """What the kernel reads besides x, by name."""
  found = {'words': op.words, 'scale': op.scale}
  if op.zero is not None:
    found['zero'] = op.zero
  if op.tensor_scale is not None:
    found['tensor_scale'] = op.tensor_scale
  table = op.storage.table
  if table is not None and len(table) > SELECTS:
    padded = np.resize(table, (math.ceil(len(table) / LANES), LANES))
    found['table'] = jnp.asarray(padded)
  return found


def _blocks(
  op: operands.Operands, tiles: tuned.TpuTiles
) -> dict[str, grid_lib.Block]:
  bm, bn, bk = tiles.block_m, tiles.block_n, tiles.block_k
  s = op.storage
  # All scales of a column block are resident: they are decoded once for it.
  side = grid_lib.Block((op.scale.shape[0], bn), lambda i, j, k: (0, j))
  zero_bytes = bn * op.zero_bits // 8 if op.zero_bits else bn
  whole = lambda *shape: grid_lib.Block(shape, lambda i, j, k: (0, 0))
  rows = s.count(bk)
  return {
    'x': grid_lib.Block((bm, bk), lambda i, j, k: (i, k)),
    'words': grid_lib.Block((rows, bn), lambda i, j, k: (k, j)),
    'scale': side,
    'zero': dataclasses.replace(side, shape=(side.shape[0], zero_bytes)),
    'tensor_scale': whole(1, 1),
    'table': whole(math.ceil(2**s.format.bits / LANES), LANES),
    'out': grid_lib.Block((bm, bn), lambda i, j, k: (i, j)),
  }


def _kernel(names, op, precision, *refs):
  # x [bm, bk]   words [bytes, bn]   scale, zero [groups, bn]   out [bm, bn]
  ref = dict(zip((*names, 'out', 'sum', 'scales', 'zeros'), refs))
  s, k = op.storage, pl.program_id(2)
  chunks, tail = divmod(ref['x'].shape[1], s.chunk)

  @pl.when(k == 0)
  def _():
    ref['sum'][...] = jnp.zeros_like(ref['sum'])
    scales = operands.decode_scale(ref['scale'][...], op.scale_format)
    _spread(ref['scales'], scales)
    if 'zeros' in ref:
      _spread(ref['zeros'], _zeros(ref['zero'][...], op))

  def add(first, start, size, c):
    words = ref['words'][pl.ds(first, s.count(size)), :]
    fields = storage.unpack(words, s, size)
    look_up = functools.partial(_look_up, ref.get('table'))
    w = storage.values(fields, s, look_up)
    x = ref['x'][:, pl.ds(start, size)]
    ref['sum'][...] += _scaled(x, w, ref, c, op, precision)

  def step(c, carry):
    first = pl.multiple_of(c * s.rows, s.rows)
    start = pl.multiple_of(c * s.chunk, s.chunk)
    add(first, start, s.chunk, k * chunks + c)
    return carry

  if chunks:
    jax.lax.fori_loop(0, chunks, step, None)
  if tail:  # Then all of K is resident.
    add(chunks * s.rows, chunks * s.chunk, tail, chunks)

  @pl.when(k == pl.num_programs(2) - 1)
  def _():
    y = ref['sum'][...]
    if not op.grouped:
      y = y * ref['scales'][0]
    if 'tensor_scale' in ref:
      y = y * ref['tensor_scale'][...]
    ref['out'][...] = y.astype(ref['out'].dtype)


def _spread(ref, rows):
  """Fills ref [chunks, per chunk, n], which is then addressed by chunks."""
  per = ref.shape[1]
  for c in range(ref.shape[0]):
    part = rows[c * per : (c + 1) * per]
    ref[c, : part.shape[0]] = part


def _zeros(zero, op: operands.Static):
  """Zero points [groups, bn] as float32."""
  if not op.zero_bits:
    return operands.to_float(zero)
  s = op.zero_storage
  parts = [
    storage.unpack(zero[:, at : at + s.rows], s, axis=1)
    for at in range(0, zero.shape[1], s.rows)
  ]
  return jnp.concatenate(parts, axis=1).astype(jnp.float32)


def _scaled(x, w, ref, c, op: operands.Operands, precision):
  """Product with the values w of chunk c of K, scaled if in groups."""
  product = lambda x, w: jnp.dot(
    x,
    w.astype(x.dtype),
    preferred_element_type=jnp.float32,
    precision=precision,
  )
  if not op.grouped:
    return product(x, w - ref['zeros'][0] if 'zeros' in ref else w)
  chunk, size = op.storage.chunk, w.shape[0]
  if op.group > chunk:
    c = jax.lax.div(c, op.group // chunk)
  count = math.ceil(size / op.group)
  scales = ref['scales'][c][:count]
  if 'zeros' in ref:
    w = w - _wide(ref['zeros'][c][:count], op.group, size)
  if op.group % LANES:
    return product(x, w * _wide(scales, op.group, size))
  step, parts = min(op.group, size), []
  for i in range(scales.shape[0]):
    part = slice(i * step, (i + 1) * step)
    parts.append(product(x[:, part], w[part]) * scales[i : i + 1])
  return functools.reduce(jnp.add, parts)


def _wide(rows, group: int, size: int):
  """Side data of groups [count, n] as one row a code [size, n]."""
  if rows.shape[0] == 1:
    return rows
  count, n = rows.shape
  wide = jnp.broadcast_to(rows[:, None], (count, group, n))
  return wide.reshape(count * group, n)[:size]


def _look_up(table_ref, fields, table):
  """table[fields], 128 entries of a table at once."""
  if table_ref is None:
    return storage.select(fields, table)
  take = functools.partial(
    jnp.take_along_axis, axis=1, mode='promise_in_bounds'
  )
  columns = []
  for at in range(0, fields.shape[1], LANES):
    part = fields[:, at : at + LANES]
    row = lambda i, part=part: take(
      jnp.broadcast_to(table_ref[i : i + 1, :], (part.shape[0], LANES)),
      part & (LANES - 1),
    )
    value = row(0)
    for i in range(1, table_ref.shape[0]):
      value = jnp.where(part >= i * LANES, row(i), value)
    columns.append(value)
  return jnp.concatenate(columns, axis=1)
