"""Nested integers: one stored code array serves every smaller width.

Double rounding: only the widest codes are kept, and a narrower width rounds
them again, with the scale times a power of two. Xu et al., Nearly Lossless
Adaptive Bit Switching, 2025 (arXiv:2502.01199).
"""

import dataclasses

import jax
import jax.numpy as jnp

from lowbit import formats
from lowbit.quantize import qtensor


def narrow(
  q: qtensor.QTensor, bits: int, truncate: bool = False
) -> qtensor.QTensor:
  """A signed integer QTensor at a smaller width.

  W_l = clip(round(W_h / 2^(h - l))), half to even, with scale 2^(h - l) s_h.

  Args:
    q: Of a signed integer format of h bits, float32 scales.
    bits: l <= h, at least 2.
    truncate: Drop the low bits instead (floor), as AdaBits and Any-Precision
      DNN do; the codes are then in the full range.

  Returns:
    A `QTensor` of `bits` bits with the block and axis of `q`.

  Raises:
    ValueError: If the format is no signed integer, or does not narrow so far.
  """
  fmt = q.spec.format
  if not (isinstance(fmt, formats.Integer) and fmt.signed) or (
    q.spec.scale_format is not None
  ):
    raise ValueError(
      f'`q` must hold signed integers with float32 scales, got {q.spec}.'
    )
  if not 2 <= bits <= fmt.bits:
    raise ValueError(
      f'`bits` must lie in 2..{fmt.bits}, the width of the stored codes; got '
      f'{bits}.'
    )
  shift = fmt.bits - bits
  small = formats.Integer(bits, full_range=truncate or fmt.full_range)
  codes = _narrow(q.codes, shift, small, truncate)
  spec = dataclasses.replace(q.spec, format=small)
  return dataclasses.replace(
    q, codes=codes, scale=q.scale * jnp.float32(2**shift), spec=spec
  )


def _narrow(codes, shift, small, truncate) -> jax.Array:
  if truncate:
    return codes >> jnp.asarray(shift, codes.dtype)
  halves = codes.astype(jnp.float32) * jnp.float32(2.0**-shift)
  return small.encode(halves)
