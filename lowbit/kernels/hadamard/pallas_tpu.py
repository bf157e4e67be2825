"""The transform on a TPU: 128 x 128 on the matrix unit, butterflies above.

A block of n = 128 q columns is the Kronecker product of H_q and H_128, so that
each 128 lanes are multiplied once, and the q of them are added and subtracted
as whole registers. Narrower blocks stand on the diagonal of a 128 x 128 matrix.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from lowbit import transforms
from lowbit.kernels import grid as grid_lib
from lowbit.kernels.hadamard import tuned
from lowbit.kernels.quantize_rows import body

LANES = 128
ROWS = 32  # A tile of int8.


def reasons(x, block: int) -> list[str]:
  """Why the kernel cannot take x [M, K]."""
  k, found = x.shape[1], []
  power = block & -block
  if k % LANES:
    found.append(f'K={k} is not a multiple of {LANES} lanes')
  if block & (block - 1) and power < LANES:
    found.append(f'the block {block} has no factor of {LANES}')
  if 32 * k * 4 > tuned.TPU_BYTES:
    found.append(f'32 rows of K={k} do not fit VMEM')
  return found


@functools.partial(jax.jit, static_argnums=(1, 2, 3))
def hadamard(x, block: int, high: int | None, interpret: bool = False):
  """As `reference.hadamard`; `high` is the largest code, None for no codes."""
  m, k = x.shape
  bm = min(tuned.tpu(k), math.ceil(m / ROWS) * ROWS)
  row = lambda n: pl.BlockSpec((bm, n), lambda i: (i, 0))
  out = row(k), jax.ShapeDtypeStruct((m, k), x.dtype)
  if high is not None:
    codes = jax.ShapeDtypeStruct((m, k), jnp.int8)
    scale = jax.ShapeDtypeStruct((m, 1), jnp.float32)
    out = (row(k), row(1)), (codes, scale)
  return grid_lib.pallas_call(
    functools.partial(_kernel, block, high),
    grid=(math.ceil(m / bm),),
    in_specs=[row(k)],
    out_specs=out[0],
    out_shape=out[1],
    scratch_shapes=[pltpu.VMEM((bm, k), jnp.float32)],
    compiler_params=pltpu.CompilerParams(dimension_semantics=('parallel',)),
    interpret=interpret,
    name='hadamard',
  )(x)


def core_of(small: int) -> jax.Array:
  """Hadamard matrices of order `small` along the diagonal: [128, 128].

  Sylvester's have -1 where i & j has an odd number of ones. They are made in
  the kernel, since a row or two of x are fewer bytes than they are.
  """
  i, j = (
    jax.lax.broadcasted_iota(jnp.int32, (LANES, LANES), axis) for axis in (0, 1)
  )
  sign = 1 - 2 * (jax.lax.population_count(i & j & (small - 1)) & 1)
  log = small.bit_length() - 1
  return jnp.where(i >> log == j >> log, sign, 0).astype(jnp.float32)


def _kernel(block, high, x_ref, *rest):
  # x, work [bm, K]
  *out, work_ref = rest
  k, width = x_ref.shape[1], max(block, LANES)
  core = core_of(min(block, LANES))
  norm = np.float32(1 / math.sqrt(block))
  for start in range(0, k, width):
    slabs = [
      jnp.dot(
        x_ref[:, at : at + LANES].astype(jnp.float32),
        core,
        preferred_element_type=jnp.float32,
        precision='highest',
      )
      for at in range(start, start + width, LANES)
    ]
    for i, slab in enumerate(outer(slabs)):
      at = start + i * LANES
      work_ref[:, at : at + LANES] = slab * norm
  if high is None:
    out[0][...] = work_ref[...].astype(out[0].dtype)
    return
  _quantize(high, work_ref, *out)


def _quantize(high: int, work_ref, codes_ref, scale_ref):
  """A tile of rows at a time: what is between takes VMEM, too."""

  def rows(r, carry):
    mine = pl.ds(pl.multiple_of(r * ROWS, ROWS), ROWS)
    y = work_ref[mine, :]
    scale = body.scale_of(body.row_largest(y), high)
    scale_ref[mine, :] = scale
    codes = body.codes_of(y, scale, high, jnp.rint)
    codes_ref[mine, :] = codes.astype(jnp.int8)
    return carry

  jax.lax.fori_loop(0, work_ref.shape[0] // ROWS, rows, None)


def outer(slabs: list) -> list:
  """The Hadamard matrix of order len(slabs), applied to a list of arrays."""
  base, power = transforms.hadamard.split_width(len(slabs))
  step = 1
  while step < power:
    slabs = _butterfly(slabs, step)
    step *= 2
  if base == 1:
    return slabs
  matrix = transforms.hadamard.hadamard_matrix(base)
  rows = [slabs[i * power : (i + 1) * power] for i in range(base)]
  mixed = [
    [
      _signed_sum([rows[i][j] for i in range(base)], matrix[:, o])
      for j in range(power)
    ]
    for o in range(base)
  ]
  return [slab for row in mixed for slab in row]


def _butterfly(slabs, step: int):
  """Sums and differences of slabs at distance `step`."""
  found = list(slabs)
  for start in range(0, len(slabs), 2 * step):
    for i in range(start, start + step):
      a, b = slabs[i], slabs[i + step]
      found[i], found[i + step] = a + b, a - b
  return found


def _signed_sum(slabs, signs):
  total = None
  for slab, sign in zip(slabs, signs):
    if total is None:
      total = slab if sign > 0 else -slab
    else:
      total = total + slab if sign > 0 else total - slab
  return total
