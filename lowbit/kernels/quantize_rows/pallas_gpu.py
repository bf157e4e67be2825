"""quantize_rows on a GPU (Triton): a program holds a row, or a group of it."""

import functools

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu

from lowbit.kernels.quantize_rows import body, tuned

CHUNK = 256


def reasons(x, bits: int, group: int) -> list[str]:
  """Why the kernel cannot take x [M, K]."""
  k, found = x.shape[1], []
  if k % CHUNK or not k:
    found.append(f'K={k} is not in whole chunks of {CHUNK} codes')
  if k > tuned.GPU_MOST:
    found.append(f'a row of K={k} does not fit the registers')
  if group != k and (group & (group - 1) or k % group):
    found.append(f'groups of {group} are no power of two')
  if bits == 4 and group < CHUNK:
    found.append(f'groups of {group} are less than a chunk of packed nibbles')
  return found


@functools.partial(jax.jit, static_argnums=(1, 2, 3))
def quantize_rows(x, bits: int, group: int, interpret: bool = False):
  """(codes int8 [M, K] or packed uint8 [M, K / 2], scale [M, K / group])."""
  m, k = x.shape
  groups, step = k // group, min(group, CHUNK)
  units = group // step
  x = x.reshape(m, groups, units, step)
  width = step if bits == 8 else step // 2
  at = lambda i, g: (i, g, 0, 0)
  codes, scale = pl.pallas_call(
    functools.partial(_kernel, bits, units),
    grid=(m, groups),
    in_specs=[pl.BlockSpec((1, 1, units, step), at)],
    out_specs=(
      pl.BlockSpec((1, 1, units, width), at),
      pl.BlockSpec((1, 1), lambda i, g: (i, g)),
    ),
    out_shape=(
      jax.ShapeDtypeStruct(
        (m, groups, units, width), jnp.int8 if bits == 8 else jnp.uint8
      ),
      jax.ShapeDtypeStruct((m, groups), jnp.float32),
    ),
    compiler_params=plgpu.CompilerParams(num_warps=4),
    interpret=interpret,
    name='quantize_rows',
  )(x)
  return codes.reshape(m, -1), scale


def _kernel(bits, units, x_ref, codes_ref, scale_ref):
  # x [1, 1, units, step]: two sweeps, the second out of the cache.
  high, step = 2 ** (bits - 1) - 1, x_ref.shape[3]

  def largest(u, carry):
    x = jnp.abs(x_ref[0, 0, u].astype(jnp.float32))
    return body.largest(x, carry)

  zeros = jnp.zeros((step,), jnp.float32)
  amax = jax.lax.fori_loop(0, units, largest, (zeros, zeros))
  amax = body.join(amax)
  scale = body.scale_of(amax, high)
  scale_ref[0, 0] = scale

  def write(u, carry):
    def codes(at, size):
      x = x_ref[0, 0, u, pl.ds(at, size)].astype(jnp.float32)
      return body.codes_of(x, scale, high)

    if bits == 8:
      codes_ref[0, 0, u] = codes(0, step).astype(jnp.int8)
    else:
      low, up = codes(0, step // 2), codes(step // 2, step // 2)
      codes_ref[0, 0, u] = ((low & 15) | ((up & 15) << 4)).astype(jnp.uint8)
    return carry

  jax.lax.fori_loop(0, units, write, 0)
