"""grouped_matmul on a GPU (Triton): a tile of rows reads who its expert is."""

import functools

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu

from lowbit.kernels import storage
from lowbit.kernels.grouped_matmul import layout, tuned
from lowbit.kernels.int_matmul import pallas_gpu as integer


def reasons(x, w, group_sizes) -> list[str]:
  """Why the kernel cannot take the arguments."""
  found = layout.reasons(w)
  if not found:
    op = jax.eval_shape(functools.partial(layout.units), w)
    n = op.words.shape[2]
    if op.unit & (op.unit - 1):
      found.append(f'units of {op.unit} codes are no power of two')
    if tuned.gpu(x.shape[0], group_sizes.shape[0], n) is None:
      found.append(f'N={n} is not a multiple of 16, the smallest block')
  return found


@functools.partial(jax.jit, static_argnames=('interpret',))
def grouped_matmul(x, w, group_sizes, *, interpret=False) -> jax.Array:
  """As `reference.grouped_matmul`."""
  op = layout.units(w)
  n = op.words.shape[2]
  tiles = tuned.gpu(x.shape[0], group_sizes.shape[0], n)
  bm, bn = tiles.block_m, tiles.block_n
  tiled = layout.tile(x.shape[0], group_sizes, bm)
  a = layout.activations(tiled.spread(x), op.unit)
  side = lambda a: pl.BlockSpec((*a.shape[:2], bn), lambda i, j: (0, 0, j))
  inputs = [tiled.expert, a, op.words, op.scale]
  specs = [
    pl.BlockSpec((1,), lambda i, j: (i,)),
    pl.BlockSpec((op.units, bm, op.unit), lambda i, j: (0, i, 0)),
    side(op.words),
    side(op.scale),
  ]
  if op.zero is not None:
    inputs.append(op.zero)
    specs.append(side(op.zero))
  y = pl.pallas_call(
    functools.partial(_kernel, op.storage, op.chunks, op.units),
    grid=(tiled.expert.shape[0], n // bn),
    in_specs=specs,
    out_specs=pl.BlockSpec((bm, bn), lambda i, j: (i, j)),
    out_shape=jax.ShapeDtypeStruct((tiled.rows, n), jnp.float32),
    compiler_params=plgpu.CompilerParams(num_warps=4, num_stages=3),
    interpret=interpret,
    name='grouped_matmul',
  )(*inputs)
  return tiled.gather(y).astype(x.dtype)


def _kernel(s, chunks, units, expert_ref, x_ref, words_ref, scale_ref, *rest):
  # x [units, bm, unit]   words [E chunks, bytes, bn]   sides [E units, 1, bn]
  *zero_ref, out_ref = rest
  e, unit = expert_ref[0], x_ref.shape[2]

  def step(u, total):
    c, i = integer.divide(u, units // chunks)
    fields = integer.read(words_ref, s, e * chunks + c, i, unit)
    w = storage.values(fields, s)
    if zero_ref:
      w = w - zero_ref[0][e * units + u]
    x = x_ref[u]
    y = jnp.dot(
      x,
      w.astype(x.dtype),
      preferred_element_type=jnp.float32,
      precision='highest' if x.dtype == jnp.float32 else None,
    )
    return total + y * scale_ref[e * units + u]

  zeros = jnp.zeros(out_ref.shape, jnp.float32)
  out_ref[...] = jax.lax.fori_loop(0, units, step, zeros)
