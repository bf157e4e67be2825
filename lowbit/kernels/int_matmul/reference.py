"""The meaning of int_matmul: int32 sums of groups, then the scales."""

import jax
import jax.numpy as jnp

from lowbit import quantize
from lowbit.kernels import operands, storage
from lowbit.kernels.int_matmul import parts as parts_lib


def int_matmul(parts: tuple[parts_lib.Part, ...], dtype) -> jax.Array:
  """sum over parts and groups of (codes @ codes) * scales: [M, N].

  Args:
    parts: From `parts.take_apart`.
    dtype: Of the result; int32 for the bare sums, if no part has groups.
  """
  y = 0
  for part in parts:
    y = y + _part(part, dtype == jnp.int32)
  return y.astype(dtype)


def weights(op: operands.Operands) -> jax.Array:
  """The codes of a weight, int32 [K, N], by way of `quantize.packing`."""
  fmt = op.storage.format
  words = op.words.T
  if op.storage.ternary:
    digits = quantize.packing.unpack_ternary(words, op.size)
    return digits.T.astype(jnp.int32) - 1
  if op.storage.packed:
    words = quantize.packing.unpack_codes(words, fmt.bits, op.size)
    words = quantize.packing.signed(words, fmt)
    return words.T.astype(jnp.int32)
  return storage.integers(words.T.astype(jnp.int32), op.storage)


def _part(part, bare: bool):
  group, codes = part.group, weights(part.op)
  zero, ratio = parts_lib.sides(part)
  spread = lambda a: (
    a if a is None else jnp.repeat(a, part.op.group, axis=0)[: part.size]
  )
  w = parts_lib.fold(codes, spread(zero), spread(ratio)).astype(jnp.int32)
  x = part.x.astype(jnp.int32)
  if bare:
    return x @ w
  y, w_scale = 0.0, part.w_scale
  for g, start in enumerate(range(0, part.size, group)):
    sums = x[:, start : start + group] @ w[start : start + group]
    sums = sums.astype(jnp.float32) * _group(part.x_scale, g, 1)
    y = y + sums * _group(w_scale, g, 0)
  return y


def _group(scale, g: int, axis: int):
  """The scales of group g, or the only ones, with their axis kept."""
  g = g if scale.shape[axis] > 1 else 0
  return jax.lax.slice_in_dim(scale, g, g + 1, axis=axis)
