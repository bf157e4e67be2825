"""dequantize(quantize(x)) as one program that stores no codes."""

import dataclasses
import functools

import jax
import jax.numpy as jnp

from lowbit import formats
from lowbit.formats import base
from lowbit.quantize import blocking, qtensor, scales, sides
from lowbit.quantize import spec as spec_lib


def round_trip(
  x: jax.Array,
  spec: spec_lib.Spec | str,
  axis: int | tuple[int, ...] = -1,
  key: jax.Array | None = None,
  with_inside: bool = False,
  with_offset: bool = False,
) -> tuple[jax.Array, jax.Array | None, jax.Array | None]:
  """dequantize(quantize(x)) in the dtype of `x`, bit for bit.

  Args:
    x, spec, axis, key: As for `qtensor.quantize`.
    with_inside: Whether to return the mask as well.
    with_offset: Whether to return the offset as well.

  Returns:
    `(y, inside, offset)`: an array like `x`; a mask of the elements that lay
    between the ends of the format, or None; and x - y in units of the scale,
    float32, or None.

  Raises:
    TypeError, ValueError: As `quantize`; and with the mask or the offset as
      `wide_scales`.
  """
  spec = spec_lib.Spec.parse(spec)
  qtensor.check_float(x)
  qtensor.check_key(spec.rounding, key)
  if with_inside or with_offset:
    qtensor.check_one_scale(spec.format)
  axis = blocking.normalize_axis(axis, x.ndim) if x.ndim else ()
  blocks = qtensor.blocks_of(x.shape, spec, axis)
  asks = with_inside, with_offset
  return _round_trip(jnp.asarray(x), key, spec, axis, blocks, asks)


@functools.partial(jax.jit, static_argnums=(2, 3, 4, 5))
def _round_trip(x, key, spec, axis, blocks, asks):
  return through(x, key, spec, axis, blocks, *asks)


def through(x, key, spec, axis, blocks, with_inside=False, with_offset=False):
  """`round_trip` as a part of another program; the format may be traced."""
  xb = blocks.split(x.astype(jnp.float32))
  store = _as_is if _has_whole_exponents(spec) else _round_scale
  scale, zero, side = qtensor.fit(xb, spec, blocks, axis, store)
  like = qtensor.QTensor(jnp.zeros(()), scale, zero, spec, axis, side)
  xb = blocks.split(qtensor.elements(x))
  y = qtensor.scaled(xb, like, blocks)
  values = qtensor.place(sides.round, y, like, blocks, key)
  inside = _inside(y, like, blocks) if with_inside else None
  offset = _offset(xb, values, like, blocks) if with_offset else None
  return qtensor.unscale(values, like, blocks).astype(x.dtype), inside, offset


def _has_whole_exponents(spec) -> bool:
  """Whether E8M0 has every scale of the rule: powers of two from 2^-126 up."""
  is_power = isinstance(spec.scale, scales.PowerOfTwo)
  return is_power and isinstance(spec.scale_format, formats.E8M0)


def _as_is(scale, fmt, axis):
  del fmt, axis
  return scale


def _round_scale(scale, fmt, axis):
  """What is stored of a scale, decoded."""
  if fmt is None:
    return scale
  if isinstance(fmt, spec_lib.Spec):
    return round_trip(scale, fmt, axis)[0]
  return base.where(jnp.isnan(scale), jnp.float32(jnp.nan), fmt.round(scale))


def _inside(y, like, blocks):
  if isinstance(like.spec.format, formats.Float32):
    return jnp.ones(blocks.shape, bool)
  low, high = like.spec.format.values()[[0, -1]]
  slack = (high - low) * 1e-6  # The largest element, divided by its own scale.
  return blocks.merge((y >= low - slack) & (y <= high + slack))


def _offset(xb, values, like, blocks):
  if like.zero is not None:
    values = values - blocks.spread(like.zero.astype(jnp.float32))
    like = dataclasses.replace(like, zero=None)
  return blocks.merge(qtensor.scaled(xb, like, blocks) - values)
