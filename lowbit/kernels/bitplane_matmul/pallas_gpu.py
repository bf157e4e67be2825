"""bitplane_matmul on a GPU (Triton): popcounts in registers.

Triton does not reach the binary tensor cores that ABQ-LLM uses, and Hopper and
later emulate them; the population count of the integer units is what is left.
"""

import functools
import math

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu

from lowbit.kernels.bitplane_matmul import planes, tuned, xla


def reasons(x: planes.Planes, w: planes.Planes) -> list[str]:
  """Why the kernel cannot take the arguments."""
  del x
  n = w.words.shape[2]
  if tuned.gpu(n) is None:
    return [f'N={n} is not a multiple of 16, the smallest block']
  return []


@functools.partial(jax.jit, static_argnames=('interpret',))
def bitplane_matmul(x, w, *, interpret=False) -> jax.Array:
  """As `reference.bitplane_matmul`."""
  m, n, count = x.words.shape[1], w.words.shape[2], x.words.shape[2]
  tiles = tuned.gpu(n)
  bm, bn = tiles.block_m, tiles.block_n
  rows = math.ceil(m / bm) * bm
  a = jnp.pad(x.words, ((0, 0), (0, rows - m), (0, 0)))
  total = pl.pallas_call(
    functools.partial(_kernel, x.coding, w.coding),
    grid=(rows // bm, n // bn),
    in_specs=[
      pl.BlockSpec((a.shape[0], bm, count), lambda i, j: (0, i, 0)),
      pl.BlockSpec((w.words.shape[0], count, bn), lambda i, j: (0, 0, j)),
    ],
    out_specs=pl.BlockSpec((bm, bn), lambda i, j: (i, j)),
    out_shape=jax.ShapeDtypeStruct((rows, n), jnp.int32),
    compiler_params=plgpu.CompilerParams(num_warps=4, num_stages=2),
    interpret=interpret,
    name='bitplane_matmul',
  )(_int32(a), _int32(w.words))
  return planes.finish(x, w, total[:m])


def _int32(words):
  """The same bits as int32."""
  return jax.lax.bitcast_convert_type(words, jnp.int32)


def _kernel(x_coding, w_coding, x_ref, w_ref, out_ref):
  # x [bits, bm, words]   w [bits, words, bn]   out [bm, bn]
  def step(k, total):
    a = [x_ref[i, :, pl.ds(k, 1)] for i in range(x_coding.bits)]
    b = [w_ref[j, pl.ds(k, 1), :] for j in range(w_coding.bits)]
    return total + xla.pairs(a, b, x_coding, w_coding)

  zeros = jnp.zeros(out_ref.shape, jnp.int32)
  out_ref[...] = jax.lax.fori_loop(0, x_ref.shape[2], step, zeros)
