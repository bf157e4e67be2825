"""int_matmul as XLA runs it: a scan over slabs of K, each decoded on its way.

A CPU has no fast int8 product, but float32 sums of whole numbers below 2^24 are
exact: slabs of 1024 codes of 8 bits are multiplied in float32 and added up as
int32. Elsewhere the slabs are int8 products.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from lowbit.kernels import storage
from lowbit.kernels.int_matmul import parts as parts_lib

SLAB = 1024  # 1024 * 128 * 128 = 2^24.


def exact_dot(x: jax.Array, w: jax.Array) -> jax.Array:
  """int8 [M, K] @ int8 [K, N] -> int32, exact, for K up to `SLAB`."""

  def in_float(x, w):
    product = jnp.dot(
      x.astype(jnp.float32), w.astype(jnp.float32), precision='highest'
    )
    return product.astype(jnp.int32)

  def in_int(x, w):
    return jnp.dot(x, w, preferred_element_type=jnp.int32)

  return jax.lax.platform_dependent(x, w, cpu=in_float, default=in_int)


def int_matmul(parts: tuple[parts_lib.Part, ...], dtype) -> jax.Array:
  """As `reference.int_matmul`."""
  y = 0
  for part in parts:
    y = y + _part(part, dtype == jnp.int32)
  return y.astype(dtype)


def _part(part, bare: bool):
  step = _slab(part)
  count = part.size // step
  shape = (part.x.shape[0], part.op.columns)
  sums = jnp.zeros(shape, jnp.float32 if part.grouped else jnp.int32)
  body = lambda i, sums: sums + _slab_sum(_cut(part, i, step), part.grouped)
  if count:
    sums = jax.lax.fori_loop(0, count, body, sums)
  if count * step < part.size:
    rest = part.rows(count * step, part.size)
    sums = sums + _slab_sum(rest, part.grouped)
  if bare or part.grouped:
    return sums
  return sums.astype(jnp.float32) * part.x_scale * part.w_scale


def _slab(part) -> int:
  """Codes of a slab: whole chunks and groups, about `SLAB`."""
  unit = part.op.storage.chunk
  for group in (part.x_group, part.op.group):
    if group < part.size:
      unit = int(np.lcm(unit, group))
  return max(SLAB // unit, 1) * unit


def _cut(part, i, step: int):
  """`part.rows` of slab i, which may be traced."""
  op = part.op
  cut = lambda a, n, axis=0: jax.lax.dynamic_slice_in_dim(a, i * n, n, axis)

  def side(a, group, axis=0):
    if a is None or group >= part.size:
      return a
    return cut(a, step // group, axis)

  op = dataclasses.replace(
    op,
    words=cut(op.words, op.storage.count(step)),
    scale=side(op.scale, op.group),
    zero=side(op.zero, op.group),
    size=step,
    group=min(op.group, step),
  )
  x_scale = side(part.x_scale, part.x_group, 1)
  x_group = min(part.x_group, step)
  return parts_lib.Part(
    cut(part.x, step, 1), x_scale, op, part.channel, x_group
  )


def _slab_sum(part, grouped: bool):
  """int32 sums, or scaled float32 ones if the whole part is `grouped`."""
  w = _weights(part)
  if not grouped:
    return long_dot(part.x, w)
  group, size = part.group, part.size
  pad = -size % group
  x = jnp.pad(part.x, ((0, 0), (0, pad))).reshape(
    -1, (size + pad) // group, group
  )
  w = jnp.pad(w, ((0, pad), (0, 0))).reshape(-1, group, w.shape[1])
  sums = jax.vmap(long_dot, in_axes=(1, 0))(x, w).astype(jnp.float32)
  x_scale = part.x_scale.T[:, :, None]
  return jnp.sum(sums * x_scale * part.w_scale[:, None], axis=0)


def long_dot(x, w):
  """`exact_dot` for any K."""
  return sum(
    exact_dot(x[:, at : at + SLAB], w[at : at + SLAB])
    for at in range(0, x.shape[1], SLAB)
  )


def _weights(part):
  """int8 [K, N], two-stage ratios and zero points applied."""
  op = part.op
  s, codes = op.storage, []
  for at in range(0, part.size, s.chunk):
    piece = op.rows(at, min(at + s.chunk, part.size))
    fields = storage.unpack(piece.words, s, piece.size)
    codes.append(storage.integers(fields, s))
  spread = lambda a: (
    a
    if a is None or a.shape[0] == 1
    else jnp.repeat(a, op.group, axis=0)[: part.size]
  )
  zero, ratio = parts_lib.sides(part)
  return parts_lib.fold(jnp.concatenate(codes), spread(zero), spread(ratio))
