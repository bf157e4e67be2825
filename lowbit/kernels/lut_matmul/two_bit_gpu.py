"""lut_gemm_2bit on a GPU (Triton): four products with mapped weights."""

import functools
import math

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu

from lowbit.kernels.lut_matmul import two_bit

BYTES = two_bit.CHUNK // 4  # A chunk of codes, in four lanes of 64.


def reasons(x, words) -> list[str]:
  """Why the kernel cannot take the arguments."""
  found = []
  if x.shape[1] < two_bit.CHUNK:
    found.append(f'K={x.shape[1]} is less than a chunk of {two_bit.CHUNK}')
  if words.shape[1] % 16:
    found.append(
      f'N={words.shape[1]} is not a multiple of 16, the smallest block'
    )
  return found


@functools.partial(jax.jit, static_argnums=(2, 3))
def product(x, words, table, interpret: bool) -> jax.Array:
  """As `two_bit.reference`; K behind the last whole chunk by XLA."""
  whole = x.shape[1] // two_bit.CHUNK * two_bit.CHUNK
  at = whole // two_bit.CODES
  y = _whole(x[:, :whole], words[:at], table, interpret)
  if whole == x.shape[1]:
    return y
  return y + two_bit.xla(x[:, whole:], words[at:], table)


def _whole(x, words, table, interpret):
  factor, sums = two_bit.kind_of(table)
  (m, _), n, bm = x.shape, words.shape[1], 16
  bn = next(b for b in (64, 32, 16) if n % b == 0)
  rows = math.ceil(m / bm) * bm
  chunks = words.shape[0] // BYTES
  hot = two_bit.one_hot(x, factor)
  hot = jnp.pad(hot, ((0, 0), (0, rows - m), (0, 0)))
  hot = jnp.moveaxis(hot.reshape(4, rows, chunks * 4, 64), 2, 0)
  y = pl.pallas_call(
    functools.partial(_kernel, table),
    grid=(rows // bm, n // bn),
    in_specs=[
      pl.BlockSpec((4 * chunks, 4, bm, 64), lambda i, j: (0, 0, i, 0)),
      pl.BlockSpec((chunks, BYTES, bn), lambda i, j: (0, 0, j)),
    ],
    out_specs=pl.BlockSpec((bm, bn), lambda i, j: (i, j)),
    out_shape=jax.ShapeDtypeStruct((rows, n), sums),
    compiler_params=plgpu.CompilerParams(num_warps=4, num_stages=2),
    interpret=interpret,
    name='lut_gemm_2bit',
  )(hot, words.reshape(chunks, BYTES, n))
  return y[:m]


def _kernel(table, hot_ref, words_ref, out_ref):
  def step(c, total):
    for lane in range(4):
      total += _lane(table, hot_ref, words_ref[c], 4 * c + lane, lane)
    return total

  zeros = jnp.zeros(out_ref.shape, out_ref.dtype)
  out_ref[...] = jax.lax.fori_loop(0, words_ref.shape[0], step, zeros)


def _lane(table, hot_ref, words, unit, lane: int):
  """Sums over the 64 codes of one lane of a chunk."""
  factor, sums = two_bit.kind_of(table)
  fields = (words.astype(jnp.int32) >> (2 * lane)) & 3
  total = None
  for c in range(two_bit.CODES):
    w = two_bit.mapped(fields, table, c, factor)
    precision = None if factor == jnp.int8 else 'highest'
    part = jnp.dot(
      hot_ref[unit, c], w, preferred_element_type=sums, precision=precision
    )
    total = part if total is None else total + part
  return total
