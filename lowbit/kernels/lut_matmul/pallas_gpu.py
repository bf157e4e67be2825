"""lut_matmul on a GPU (Triton): a program loops over the segments of K."""

import functools
import math

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu

from lowbit.kernels.lut_matmul import layout, reference, select, tuned


def reasons(x, w: layout.LutWeight) -> list[str]:
  """Why the kernel cannot take the arguments."""
  del x
  if tuned.gpu(w.shape[1]) is None:
    return [f'N={w.shape[1]} is not a multiple of 16, the smallest block']
  return []


@functools.partial(jax.jit, static_argnames=('interpret',))
def lut_matmul(table, scale, w, total, *, interpret=False) -> jax.Array:
  """As `reference.lut_matmul`."""
  m, n = table.shape[0], w.shape[1]
  segments = table.shape[1] // 16
  tiles = tuned.gpu(n)
  bm, bn = tiles.block_m, tiles.block_n
  rows = math.ceil(m / bm) * bm
  lanes = jnp.pad(table.reshape(m, -1), ((0, rows - m), (0, 0)))
  inputs = [lanes, w.words, w.scale]
  whole = lambda a: pl.BlockSpec(
    (*a.shape[:-1], bn), lambda i, j: (*(0,) * (a.ndim - 1), j)
  )
  specs = [
    pl.BlockSpec((bm, lanes.shape[1]), lambda i, j: (i, 0)),
    whole(w.words),
    whole(w.scale),
  ]
  if scale is not None:
    inputs.append(jnp.pad(scale, ((0, rows - m), (0, 0))))
    specs.append(pl.BlockSpec((bm, segments), lambda i, j: (i, 0)))
  y = pl.pallas_call(
    functools.partial(_kernel, segments, scale is not None),
    grid=(rows // bm, n // bn),
    in_specs=specs,
    out_specs=pl.BlockSpec((bm, bn), lambda i, j: (i, j)),
    out_shape=jax.ShapeDtypeStruct((rows, n), jnp.float32),
    compiler_params=plgpu.CompilerParams(num_warps=4, num_stages=2),
    interpret=interpret,
    name='lut_matmul',
  )(*inputs)
  return y[:m] - reference.shift(w, total)


def _kernel(segments, quantized, table_ref, words_ref, scale_ref, *rest):
  # table [bm, 128 segments]   words [bits, bytes, bn]   scale [segments, bn]
  out_ref = rest[-1]
  bits, kind = words_ref.shape[0], jnp.int32 if quantized else jnp.float32

  def step(s, total):
    entry = lambda t, e: table_ref[:, pl.ds(s * 128 + 8 * t + e, 1)]
    words = lambda i, b: words_ref[i, pl.ds(s * 8 + b, 1), :].astype(jnp.int32)
    found = select.segment(entry, words, bits, kind).astype(jnp.float32)
    if quantized:
      found = found * rest[0][:, pl.ds(s, 1)]
    at = s if scale_ref.shape[0] > 1 else 0
    return total + found * scale_ref[pl.ds(at, 1), :]

  zeros = jnp.zeros(out_ref.shape, jnp.float32)
  out_ref[...] = jax.lax.fori_loop(0, segments, step, zeros)
