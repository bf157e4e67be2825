"""quantize_rows on a TPU: a block of whole rows is read once, and written."""

import functools
import math

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from lowbit.kernels import grid as grid_lib
from lowbit.kernels.quantize_rows import body, tuned

CHUNK = 256


def reasons(x, bits: int, group: int) -> list[str]:
  """Why the kernel cannot take x [M, K]."""
  k, found = x.shape[1], []
  if k % CHUNK or not k:
    found.append(f'K={k} is not in whole chunks of {CHUNK} codes')
  if 32 * k * 4 > tuned.VMEM:
    found.append(f'32 rows of K={k} do not fit VMEM')
  if group != k and group % 128:
    found.append(f'groups of {group} are no multiples of 128 lanes')
  return found


@functools.partial(jax.jit, static_argnums=(1, 2, 3))
def quantize_rows(x, bits: int, group: int, interpret: bool = False):
  """(codes int8 [M, K] or packed uint8 [M, K / 2], scale [M, K / group])."""
  m, k = x.shape
  bm = min(tuned.tpu(k), math.ceil(m / 32) * 32)
  rows = math.ceil(m / bm) * bm
  width = k if bits == 8 else k // 2
  row = lambda n: pl.BlockSpec((bm, n), lambda i: (i, 0))
  groups = k // group
  codes, scale = grid_lib.pallas_call(
    functools.partial(_kernel, bits, group),
    grid=(rows // bm,),
    in_specs=[row(k)],
    out_specs=(row(width), row(groups)),
    out_shape=(
      jax.ShapeDtypeStruct((m, width), jnp.int8 if bits == 8 else jnp.uint8),
      jax.ShapeDtypeStruct((m, groups), jnp.float32),
    ),
    compiler_params=pltpu.CompilerParams(dimension_semantics=('parallel',)),
    interpret=interpret,
    name='quantize_rows',
  )(x)
  return codes, scale


def _kernel(bits, group, x_ref, codes_ref, scale_ref):
  # x [bm, K]   codes [bm, K or K / 2]   scale [bm, groups]
  k, high = x_ref.shape[1], 2 ** (bits - 1) - 1
  scales = []
  for start in range(0, k, group):
    x = x_ref[:, start : start + group].astype(jnp.float32)
    scales.append(body.scale_of(body.row_largest(x), high))
    scale_ref[:, start // group : start // group + 1] = scales[-1]
  step = CHUNK if bits == 4 else min(group, CHUNK)
  for start in range(0, k, step):
    if bits == 8:
      codes = _codes(x_ref, start, step, scales[start // group], high)
      codes_ref[:, start : start + step] = codes.astype(jnp.int8)
    else:
      low, up = (
        _codes(x_ref, at, 128, scales[at // group], high)
        for at in (start, start + 128)
      )
      word = (low & 15) | ((up & 15) << 4)
      codes_ref[:, start // 2 : start // 2 + 128] = word.astype(jnp.uint8)


def _codes(x_ref, start, size, scale, high):
  x = x_ref[:, start : start + size].astype(jnp.float32)
  return body.codes_of(x, scale, high, jnp.rint)
