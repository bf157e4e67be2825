"""lut_gemm_2bit on a TPU and a GPU: four products with mapped weights."""

import functools
import math

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jax.experimental.pallas import triton as plgpu

from lowbit.kernels.lut_matmul import two_bit

BYTES = two_bit.CHUNK // 4  # A chunk of codes, in four lanes of 64.


def reasons(x, words, name: str) -> list[str]:
  """Why the kernel cannot take the arguments."""
  found = []
  if x.shape[1] < two_bit.CHUNK:
    found.append(f'K={x.shape[1]} is less than a chunk of {two_bit.CHUNK}')
  if name == 'gpu' and words.shape[1] % 16:
    found.append(
      f'N={words.shape[1]} is not a multiple of 16, the smallest block'
    )
  return found


@functools.partial(jax.jit, static_argnums=(2, 3, 4))
def product(x, words, table, name: str, interpret: bool) -> jax.Array:
  """As `two_bit.reference`, K in whole chunks."""
  factor, sums = two_bit.kind_of(table)
  m, n, on_tpu = x.shape[0], words.shape[1], name == 'tpu'
  bm = 32 if on_tpu else 16
  bn = 256 if on_tpu else next(b for b in (64, 32, 16) if n % b == 0)
  rows = math.ceil(m / bm) * bm
  chunks = words.shape[0] // BYTES
  hot = two_bit.one_hot(x, factor)
  hot = jnp.pad(hot, ((0, 0), (0, rows - m), (0, 0)))
  hot = jnp.moveaxis(hot.reshape(4, rows, chunks * 4, 64), 2, 0)
  words = words.reshape(chunks, BYTES, n)
  step = 1 if on_tpu else chunks
  params = (
    pltpu.CompilerParams(
      dimension_semantics=('parallel', 'parallel', 'arbitrary')
    )
    if on_tpu
    else plgpu.CompilerParams(num_warps=4, num_stages=2)
  )
  y = pl.pallas_call(
    functools.partial(_on_tpu if on_tpu else _on_gpu, table),
    grid=(rows // bm, math.ceil(n / bn), chunks // step),
    in_specs=[
      pl.BlockSpec((4 * step, 4, bm, 64), lambda i, j, k: (k, 0, i, 0)),
      pl.BlockSpec((step, BYTES, bn), lambda i, j, k: (k, 0, j)),
    ],
    out_specs=pl.BlockSpec((bm, bn), lambda i, j, k: (i, j)),
    out_shape=jax.ShapeDtypeStruct((rows, n), sums),
    compiler_params=params,
    interpret=interpret,
    name='lut_gemm_2bit',
  )(hot, words)
  return y[:m]


def _on_tpu(table, hot_ref, words_ref, out_ref):
  @pl.when(pl.program_id(2) == 0)
  def _():
    out_ref[...] = jnp.zeros_like(out_ref)

  for lane in range(4):
    out_ref[...] += _lane(table, hot_ref, words_ref[0], lane, lane)


def _on_gpu(table, hot_ref, words_ref, out_ref):
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
