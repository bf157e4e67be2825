"""The transform on a GPU (Triton): a block as a matrix, between two factors.

With n = a b, x as [a, b] becomes H_a x H_b: two small products on the tensor
cores instead of log2 n passes. HadaCore, arXiv:2412.08832, does the same.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu

from lowbit import transforms
from lowbit.kernels.hadamard import tuned
from lowbit.kernels.quantize_rows import body


def reasons(x, block: int) -> list[str]:
  """Why the kernel cannot take x [M, K]."""
  found = []
  if block & (block - 1) or not 256 <= block <= tuned.GPU_MOST:
    found.append(
      f'the block {block} is no power of two in 256..{tuned.GPU_MOST}'
    )
  if x.shape[1] > 4 * tuned.GPU_MOST:
    found.append(f'a row of K={x.shape[1]} does not stay in the cache')
  return found


@functools.partial(jax.jit, static_argnums=(1, 2, 3))
def hadamard(x, block: int, high: int | None, interpret: bool = False):
  """As `reference.hadamard`; `high` is the largest code, None for no codes."""
  m, k = x.shape
  log = block.bit_length() - 1
  a, b = 2 ** (log // 2), 2 ** (log - log // 2)
  count = k // block
  matrix = lambda n: jnp.asarray(
    transforms.hadamard.hadamard_matrix(n), jnp.float32
  )
  whole = lambda n: pl.BlockSpec((n, n), lambda i: (0, 0))
  row = pl.BlockSpec((1, count, a, b), lambda i: (i, 0, 0, 0))
  shape = (m, count, a, b)
  out = row, jax.ShapeDtypeStruct(shape, x.dtype)
  if high is not None:
    codes = jax.ShapeDtypeStruct(shape, jnp.int8)
    scale = jax.ShapeDtypeStruct((m, 1), jnp.float32)
    side = pl.BlockSpec((1, 1), lambda i: (i, 0))
    out = (row, side), (codes, scale)
  y = pl.pallas_call(
    functools.partial(_kernel, high, np.float32(1 / math.sqrt(block))),
    grid=(m,),
    in_specs=[row, whole(a), whole(b)],
    out_specs=out[0],
    out_shape=out[1],
    compiler_params=plgpu.CompilerParams(num_warps=8 if block > 4096 else 4),
    interpret=interpret,
    name='hadamard',
  )(x.reshape(shape), matrix(a), matrix(b))
  if high is None:
    return y.reshape(m, k)
  return y[0].reshape(m, k), y[1]


def _kernel(high, norm, x_ref, left_ref, right_ref, *out):
  # x [1, blocks, a, b]   left [a, a]   right [b, b]
  count, a, b = x_ref.shape[1:]
  dot = functools.partial(
    jnp.dot, preferred_element_type=jnp.float32, precision='highest'
  )

  def rotate(c):
    y = dot(x_ref[0, c].astype(jnp.float32), right_ref[...])
    return dot(left_ref[...], y) * norm

  def step(c, carry):
    y = rotate(c)
    if high is None:
      out[0][0, c] = y.astype(out[0].dtype)
    return body.largest(jnp.abs(y), carry)

  zeros = jnp.zeros((a, b), jnp.float32)
  amax = jax.lax.fori_loop(0, count, step, (zeros, zeros))
  if high is None:
    return
  scale = body.scale_of(body.join(amax), high)
  out[1][0, 0] = scale

  def write(c, carry):  # Rotated again: cheaper than the way to memory.
    codes = body.codes_of(rotate(c), scale, high)
    out[0][0, c] = codes.astype(jnp.int8)
    return carry

  jax.lax.fori_loop(0, count, write, 0)
