"""lut_gemm_2bit on a TPU: four products with mapped weights, made in VMEM."""

import functools
import math

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from lowbit import formats
from lowbit.kernels import grid as grid_lib
from lowbit.kernels import storage
from lowbit.kernels.int_matmul import tuned
from lowbit.kernels.lut_matmul import two_bit

STORAGE = storage.Storage(formats.Integer(2, signed=False))


def reasons(x, words) -> list[str]:
  """Why the kernel cannot take the arguments."""
  if not x.shape[1] or _tiles(x, words) is None:
    return [f'K={x.shape[1]} codes are none, or do not stay in VMEM']
  return []


def _tiles(x, words) -> tuned.Tiles | None:  # Its x is as wide as int8 codes.
  return tuned.tpu(x.shape[0], [x.shape[1]], words.shape[1], [STORAGE])


@functools.partial(jax.jit, static_argnums=(2, 3, 4))
def product(x, words, table, interpret: bool, tiles=None) -> jax.Array:
  """As `two_bit.reference`."""
  (m, size), n, chunk = x.shape, words.shape[1], STORAGE.chunk
  tiles = tiles or _tiles(x, words)
  bm, bn = tiles.block_m, tiles.block_n
  steps = 1 if size % chunk else size // chunk // tiles.chunks
  sums = two_bit.kind_of(table)[1]
  return grid_lib.pallas_call(
    functools.partial(_kernel, table),
    grid=(math.ceil(m / bm), math.ceil(n / bn), steps),
    in_specs=[
      pl.BlockSpec((bm, size), lambda i, j, k: (i, 0)),
      pl.BlockSpec((words.shape[0] // steps, bn), lambda i, j, k: (k, j)),
    ],
    out_specs=pl.BlockSpec((bm, bn), lambda i, j, k: (i, j)),
    out_shape=jax.ShapeDtypeStruct((m, n), sums),
    compiler_params=pltpu.CompilerParams(
      dimension_semantics=('parallel', 'parallel', 'arbitrary'),
      vmem_limit_bytes=tuned.VMEM + 2**25,
    ),
    interpret=interpret,
    name='lut_gemm_2bit',
  )(x, words)


def _kernel(table, x_ref, words_ref, out_ref):
  # x [bm, K]   words [bytes, bn]   out [bm, bn]
  k, chunk, rows = pl.program_id(2), STORAGE.chunk, STORAGE.rows
  count = words_ref.shape[0] // rows

  @pl.when(k == 0)
  def _():
    out_ref[...] = jnp.zeros_like(out_ref)

  def add(start, first, size: int):
    words = words_ref[pl.ds(first, STORAGE.count(size)), :]
    fields = storage.unpack(words, STORAGE, size)
    x = x_ref[:, pl.ds(start, size)].astype(jnp.int32)
    out_ref[...] += _products(x, fields, table)

  def step(c, carry):
    start = pl.multiple_of((k * count + c) * chunk, chunk)
    add(start, pl.multiple_of(c * rows, rows), chunk)
    return carry

  if count:
    jax.lax.fori_loop(0, count, step, None)
  if tail := x_ref.shape[1] % chunk:  # Then all of K is one step.
    add(count * chunk, count * rows, tail)


def _products(x, fields, table):
  """Sums over the codes x [bm, k] and fields [k, bn], both int32."""
  factor, sums = two_bit.kind_of(table)
  total = None
  for c in range(two_bit.CODES):
    hot = jnp.where(x == c, 1, 0).astype(factor)
    part = jnp.dot(
      hot,
      two_bit.mapped(fields, table, c, factor),
      preferred_element_type=sums,
      precision=None if factor == jnp.int8 else 'highest',
    )
    total = part if total is None else total + part
  return total
