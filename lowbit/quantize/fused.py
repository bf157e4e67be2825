"""dequantize(quantize(x)) as one program that stores no codes."""

import functools

import jax
import jax.numpy as jnp

from lowbit import formats
from lowbit.quantize import blocking, qtensor, sides
from lowbit.quantize import spec as spec_lib


def round_trip(
  x: jax.Array,
  spec: spec_lib.Spec | str,
  axis: int | tuple[int, ...] = -1,
  key: jax.Array | None = None,
  with_inside: bool = False,
) -> tuple[jax.Array, jax.Array | None]:
  """dequantize(quantize(x)) in the dtype of `x`, bit for bit.

  Args:
    x, spec, axis, key: As for `qtensor.quantize`.
    with_inside: Whether to return the mask as well.

  Returns:
    `(y, inside)`: an array like `x`; and a mask of the elements that lay
    between the ends of the format, or None.

  Raises:
    TypeError, ValueError: As `quantize`; and with the mask as `wide_scales`.
  """
  spec = spec_lib.Spec.parse(spec)
  qtensor.check_float(x)
  qtensor.check_key(spec.rounding, key)
  if with_inside:
    qtensor.check_one_scale(spec.format)
  axis = blocking.normalize_axis(axis, x.ndim) if x.ndim else ()
  blocks = qtensor.blocks_of(x.shape, spec, axis)
  return _round_trip(jnp.asarray(x), key, spec, axis, blocks, with_inside)


@functools.partial(jax.jit, static_argnums=(2, 3, 4, 5))
def _round_trip(x, key, spec, axis, blocks, with_inside):
  return through(x, key, spec, axis, blocks, with_inside)


def through(x, key, spec, axis, blocks, with_inside=False):
  """`round_trip` as a part of another program; the format may be traced."""
  xb = blocks.split(x.astype(jnp.float32))
  scale, zero, side = qtensor.fit(xb, spec, blocks, axis, _round_scale)
  like = qtensor.QTensor(jnp.zeros(()), scale, zero, spec, axis, side)
  y = qtensor.scaled(blocks.split(qtensor.elements(x)), like, blocks)
  values = qtensor.place(sides.round, y, like, blocks, key)
  inside = _inside(y, like, blocks) if with_inside else None
  return qtensor.unscale(values, like, blocks).astype(x.dtype), inside


def _round_scale(scale, fmt, axis):
  """What is stored of a scale, decoded."""
  if fmt is None:
    return scale
  if isinstance(fmt, spec_lib.Spec):
    return round_trip(scale, fmt, axis)[0]
  return jnp.where(jnp.isnan(scale), jnp.nan, fmt.round(scale))


def _inside(y, like, blocks):
  if isinstance(like.spec.format, formats.Float32):
    return jnp.ones(blocks.shape, bool)
  low, high = like.spec.format.values()[[0, -1]]
  slack = (high - low) * 1e-6  # The largest element, divided by its own scale.
  return blocks.merge((y >= low - slack) & (y <= high + slack))
