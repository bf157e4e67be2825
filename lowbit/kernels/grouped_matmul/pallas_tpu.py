"""grouped_matmul on a TPU: the expert of a tile of rows is prefetched."""

import functools
import math

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from lowbit.kernels import storage
from lowbit.kernels.grouped_matmul import layout, tuned


def reasons(x, w, group_sizes) -> list[str]:
  """Why the kernel cannot take the arguments."""
  del x, group_sizes
  return layout.reasons(w, lane=False)


@functools.partial(jax.jit, static_argnames=('interpret',))
def grouped_matmul(x, w, group_sizes, *, interpret=False) -> jax.Array:
  """As `reference.grouped_matmul`."""
  tiles = tuned.tpu(x.shape[0], group_sizes.shape[0])
  tiled = layout.tile(x.shape[0], group_sizes, tiles.block_m)
  op = layout.units(w, lane=False)
  a = layout.activations(tiled.spread(x), op.unit)
  n, bm, bn = op.words.shape[2], tiles.block_m, tiles.block_n
  step = max(d for d in range(1, 5) if op.chunks % d == 0)
  steps, per = op.chunks // step, step * op.units // op.chunks
  side = lambda i, j, k, e: (e[i] * steps + k, 0, j)
  inputs = [a, op.words, op.scale]
  specs = [
    pl.BlockSpec((per, bm, op.unit), lambda i, j, k, e: (k, i, 0)),
    pl.BlockSpec((step, op.words.shape[1], bn), side),
    pl.BlockSpec((per, 1, bn), side),
  ]
  if op.zero is not None:
    inputs.append(op.zero)
    specs.append(specs[-1])
  y = pl.pallas_call(
    functools.partial(_kernel, op.storage, op.unit),
    grid_spec=pltpu.PrefetchScalarGridSpec(
      num_scalar_prefetch=1,
      grid=(tiled.expert.shape[0], math.ceil(n / bn), steps),
      in_specs=specs,
      out_specs=pl.BlockSpec((bm, bn), lambda i, j, k, e: (i, j)),
    ),
    out_shape=jax.ShapeDtypeStruct((tiled.rows, n), jnp.float32),
    compiler_params=pltpu.CompilerParams(
      dimension_semantics=('parallel', 'parallel', 'arbitrary')
    ),
    interpret=interpret,
    name='grouped_matmul',
  )(tiled.expert, *inputs)
  return tiled.gather(y).astype(x.dtype)


def _kernel(s, unit, expert_ref, x_ref, words_ref, scale_ref, *rest):
  # x [units, bm, unit]   words [chunks, bytes, bn]   scale, zero [units, 1, bn]
  del expert_ref
  *zero_ref, out_ref = rest

  @pl.when(pl.program_id(2) == 0)
  def _():
    out_ref[...] = jnp.zeros_like(out_ref)

  per = s.chunk // unit

  def chunk(c, carry):
    values = storage.values(storage.unpack(words_ref[c], s), s)
    for i in range(per):
      u = c * per + i
      w = values[i * unit : (i + 1) * unit]
      if zero_ref:
        w = w - zero_ref[0][u]
      x = x_ref[u]
      y = jnp.dot(
        x,
        w.astype(x.dtype),
        preferred_element_type=jnp.float32,
        precision='highest' if x.dtype == jnp.float32 else None,
      )
      out_ref[...] += y * scale_ref[u]
    return carry

  jax.lax.fori_loop(0, words_ref.shape[0], chunk, None)
