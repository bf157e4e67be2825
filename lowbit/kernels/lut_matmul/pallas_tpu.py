"""lut_matmul on a TPU: tables lie in lanes, 16 of 8 entries to a register."""

import functools
import math

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from lowbit.kernels import grid as grid_lib
from lowbit.kernels.lut_matmul import layout, reference, select, tuned


def reasons(table, scale, w: layout.LutWeight, total) -> list[str]:
  """Why the kernel cannot take the arguments: it takes them all."""
  del table, scale, w, total
  return []


@functools.partial(jax.jit, static_argnames=('interpret',))
def lut_matmul(table, scale, w, total, *, interpret=False) -> jax.Array:
  """As `reference.lut_matmul`."""
  m, n = table.shape[0], w.shape[1]
  segments = table.shape[1] // 16
  tiles = tuned.tpu(m, segments)
  bm, bn, step = tiles.block_m, min(tiles.block_n, max(n, 128)), tiles.segments
  rows = math.ceil(m / bm) * bm
  lanes = jnp.pad(table.reshape(m, -1), ((0, rows - m), (0, 0)))
  cut = w.scale.shape[0] > 1
  words = w.words.reshape(w.bits, segments, 8, n)
  inputs = [lanes, words, w.scale[:, None]]
  specs = [
    pl.BlockSpec((bm, step * 128), lambda i, j, k: (i, k)),
    pl.BlockSpec((w.bits, step, 8, bn), lambda i, j, k: (0, k, 0, j)),
    pl.BlockSpec(
      (step if cut else 1, 1, bn), lambda i, j, k: (k if cut else 0, 0, j)
    ),
  ]
  if scale is not None:
    inputs.append(jnp.pad(scale, ((0, rows - m), (0, 0))).T[:, :, None])
    specs.append(pl.BlockSpec((step, bm, 1), lambda i, j, k: (k, i, 0)))
  y = grid_lib.pallas_call(
    functools.partial(_kernel, step, scale is not None),
    grid=(rows // bm, math.ceil(n / bn), segments // step),
    in_specs=specs,
    out_specs=pl.BlockSpec((bm, bn), lambda i, j, k: (i, j)),
    out_shape=jax.ShapeDtypeStruct((rows, n), jnp.float32),
    compiler_params=pltpu.CompilerParams(
      dimension_semantics=('parallel', 'parallel', 'arbitrary')
    ),
    interpret=interpret,
    name='lut_matmul',
  )(*inputs)
  return y[:m] - reference.shift(w, total)


def _kernel(step, quantized, table_ref, words_ref, scale_ref, *rest):
  # table [bm, 128 step]   words [bits, step, 8, bn]   scale [step or 1, 1, bn]
  out_ref = rest[-1]

  @pl.when(pl.program_id(2) == 0)
  def _():
    out_ref[...] = jnp.zeros_like(out_ref)

  bits, kind = words_ref.shape[0], jnp.int32 if quantized else jnp.float32

  def segment(s, carry):
    at = pl.multiple_of(s * 128, 128)
    table = table_ref[:, pl.ds(at, 128)].astype(kind)
    planes = [words_ref[i, s].astype(jnp.int32) for i in range(bits)]
    entry = lambda t, e: table[:, 8 * t + e : 8 * t + e + 1]
    words = lambda i, b: planes[i][b : b + 1]
    found = select.segment(entry, words, bits, kind).astype(jnp.float32)
    if quantized:
      found = found * rest[0][s]
    out_ref[...] += found * scale_ref[s if scale_ref.shape[0] > 1 else 0]
    return carry

  jax.lax.fori_loop(0, step, segment, None)
