"""bitplane_matmul on a TPU: popcounts on the vector unit.

The matrix unit has no binary product. Where speed counts more than the bits'
algebra, `int_matmul` runs the same numbers as int8 on the matrix unit.

Words are read as they are stored, x once for a whole row of blocks; its rows
are as many as fit, so that the weights are read once, too. Eight rows at a time
meet a word of all columns in registers.
"""

import functools
import math

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from lowbit.kernels import grid as grid_lib
from lowbit.kernels.bitplane_matmul import planes, tuned, xla

SUBLANES = 8  # Rows of a register.


def reasons(x: planes.Planes, w: planes.Planes) -> list[str]:
  """Why the kernel cannot take the arguments."""
  (x_bits, m, count), (w_bits, _, n) = x.words.shape, w.words.shape
  if not count or tuned.tpu(m, count, n, x_bits, w_bits) is None:
    return [f'K={x.size} codes are none, or do not stay in VMEM']
  return []


@functools.partial(jax.jit, static_argnames=('interpret', 'tiles'))
def bitplane_matmul(x, w, *, tiles=None, interpret=False) -> jax.Array:
  """As `reference.bitplane_matmul`."""
  (x_bits, m, count), (w_bits, _, n) = x.words.shape, w.words.shape
  tiles = tiles or tuned.tpu(m, count, n, x_bits, w_bits)
  bm, bn, step = tiles.block_m, tiles.block_n, tiles.words
  total = grid_lib.pallas_call(
    functools.partial(_kernel, x.coding, w.coding),
    grid=(math.ceil(m / bm), math.ceil(n / bn), count // step),
    in_specs=[
      pl.BlockSpec((x_bits, bm, count), lambda i, j, k: (0, i, 0)),
      pl.BlockSpec((w_bits, step, bn), lambda i, j, k: (0, k, j)),
    ],
    out_specs=pl.BlockSpec((bm, bn), lambda i, j, k: (i, j)),
    out_shape=jax.ShapeDtypeStruct((m, n), jnp.int32),
    compiler_params=pltpu.CompilerParams(
      dimension_semantics=('parallel', 'parallel', 'arbitrary'),
      vmem_limit_bytes=tuned.VMEM,
    ),
    interpret=interpret,
    name='bitplane_matmul',
  )(x.words, w.words)
  return planes.finish(x, w, total)


def _kernel(x_coding, w_coding, x_ref, w_ref, out_ref):
  # x [bits, bm, words]   w [bits, step, bn]   out [bm, bn]
  k, step = pl.program_id(2), w_ref.shape[1]
  together = math.gcd(step, 8)  # Independent sums over lanes overlap.

  @pl.when(k == 0)
  def _():
    out_ref[...] = jnp.zeros_like(out_ref)

  def rows(r, carry):
    mine = pl.ds(pl.multiple_of(r * SUBLANES, SUBLANES), SUBLANES)
    x = [_int32(x_ref[i, mine, :]) for i in range(x_coding.bits)]

    def words(g, total):
      for at in range(together):
        at = g * together + at
        a = [_column(plane, k * step + at) for plane in x]
        b = [_int32(w_ref[j, pl.ds(at, 1), :]) for j in range(w_coding.bits)]
        total += xla.pairs(a, b, x_coding, w_coding)
      return total

    zeros = jnp.zeros((SUBLANES, out_ref.shape[1]), jnp.int32)
    out_ref[mine, :] += jax.lax.fori_loop(0, step // together, words, zeros)
    return carry

  jax.lax.fori_loop(0, out_ref.shape[0] // SUBLANES, rows, None)


def _int32(words):
  """The same bits as int32, which the vector unit counts."""
  return jax.lax.bitcast_convert_type(words, jnp.int32)


def _column(plane, at):
  """Words of one column, [rows, 1]: a sum over lanes, of which one counts."""
  lane = jax.lax.broadcasted_iota(jnp.int32, plane.shape, 1)
  mine = jnp.where(lane == at, plane, jnp.int32(0))
  return jnp.sum(mine, axis=1, keepdims=True, dtype=jnp.int32)
