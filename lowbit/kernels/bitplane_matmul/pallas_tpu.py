"""bitplane_matmul on a TPU: popcounts on the vector unit.

The matrix unit has no binary product. Where speed counts more than the bits'
algebra, `int_matmul` runs the same numbers as int8 on the matrix unit.
"""

import functools
import math

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from lowbit.kernels import grid as grid_lib
from lowbit.kernels.bitplane_matmul import planes, tuned, xla


def reasons(x: planes.Planes, w: planes.Planes) -> list[str]:
  """Why the kernel cannot take the arguments: it takes them all."""
  del x, w
  return []


@functools.partial(jax.jit, static_argnames=('interpret',))
def bitplane_matmul(x, w, *, interpret=False) -> jax.Array:
  """As `reference.bitplane_matmul`."""
  m, n, count = x.words.shape[1], w.words.shape[2], x.words.shape[2]
  bm, bn, step = tuned.TPU.block_m, tuned.TPU.block_n, tuned.LEAST_WORDS
  bn = min(bn, math.ceil(n / 128) * 128)
  rows, words = math.ceil(m / bm) * bm, math.ceil(count / step) * step
  a = jnp.pad(x.words, ((0, 0), (0, rows - m), (0, words - count)))
  a = jnp.moveaxis(a.reshape(-1, rows, words // step, step), 2, 0)
  b = jnp.pad(w.words, ((0, 0), (0, words - count), (0, 0)))
  total = grid_lib.pallas_call(
    functools.partial(_kernel, x.coding, w.coding),
    grid=(rows // bm, math.ceil(n / bn), words // step),
    in_specs=[
      pl.BlockSpec((1, a.shape[1], bm, step), lambda i, j, k: (k, 0, i, 0)),
      pl.BlockSpec((b.shape[0], step, bn), lambda i, j, k: (0, k, j)),
    ],
    out_specs=pl.BlockSpec((bm, bn), lambda i, j, k: (i, j)),
    out_shape=jax.ShapeDtypeStruct((rows, n), jnp.int32),
    compiler_params=pltpu.CompilerParams(
      dimension_semantics=('parallel', 'parallel', 'arbitrary')
    ),
    interpret=interpret,
    name='bitplane_matmul',
  )(_int32(a), _int32(b))
  return planes.finish(x, w, total[:m])


def _int32(words):
  """The same bits as int32, which the vector unit counts."""
  return jax.lax.bitcast_convert_type(words, jnp.int32)


def _kernel(x_coding, w_coding, x_ref, w_ref, out_ref):
  # x [1, bits, bm, 8]   w [bits, 8, bn]   out [bm, bn]
  @pl.when(pl.program_id(2) == 0)
  def _():
    out_ref[...] = jnp.zeros_like(out_ref)

  x, w = x_ref[0], w_ref[...]
  total = None
  for k in range(x.shape[2]):
    a = [x[i, :, k : k + 1] for i in range(x_coding.bits)]
    b = [w[j, k : k + 1] for j in range(w_coding.bits)]
    part = xla.pairs(a, b, x_coding, w_coding)
    total = part if total is None else total + part
  out_ref[...] += total
