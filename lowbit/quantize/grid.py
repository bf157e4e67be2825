"""Many formats in one compiled program: the format is data."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from lowbit import formats
from lowbit.quantize import blocking, qtensor, scales
from lowbit.quantize import spec as spec_lib


def quantize_grid(
  x: jax.Array, specs, axis: int | tuple[int, ...] = -1
) -> jax.Array:
  """fake-quantizes `x` in many float and integer formats at once.

  The formats' grid numbers are traced, so that another list of formats of the
  same length and block does not compile again.

  Args:
    x: Float array.
    specs: Names or Specs that differ in their format only; symmetric absmax
      scales in float32, nearest rounding, formats that have a float grid.
    axis: The contraction axis or axes.

  Returns:
    [formats, *x.shape], dtype of x.

  Raises:
    TypeError: If `x` is not floating point, or `specs` one name.
    ValueError: If the specs differ in more than their format, or a format is
      no float grid.
  """
  qtensor.check_float(x)
  if isinstance(specs, str):
    raise TypeError(f'`specs` must be a list of names, got {specs!r}.')
  parsed = [spec_lib.Spec.parse(s) for s in specs]
  if not parsed:
    raise ValueError('`specs` is empty. Give at least one, such as int4@g64.')
  for spec in parsed:
    rest = (spec.block, spec.scale, spec.scale_format, spec.rounding)
    if rest != (parsed[0].block, scales.Absmax(), None, 'nearest'):
      raise ValueError(
        f'`specs` must share their block and use absmax scales in float32 and '
        f'nearest rounding; {spec} differs from {parsed[0]}.'
      )
    if spec.format.grid is None:
      raise ValueError(
        f'{spec.format.name} is not a float grid. Quantize it by `quantize`.'
      )
  blocks = qtensor.blocks_of(x.shape, parsed[0], axis)
  grids = [spec.format.grid for spec in parsed]
  numbers = (
    np.asarray([g.mantissa_bits for g in grids], np.int32),
    np.asarray([g.min_exponent for g in grids], np.int32),
    np.asarray([g.max for g in grids], np.float32),
  )
  return _sweep(x, numbers, blocks)


@functools.partial(jax.jit, static_argnums=2)
def _sweep(x, numbers, blocks: blocking.Blocks):
  xb = blocks.split(x.astype(jnp.float32))
  amax = scales.absmax(xb, blocks.axes)

  def one(mantissa_bits, min_exponent, max_value):
    scale = scales.guard(scales.divide(amax, max_value), amax)
    y = formats.round_to_float_grid(
      scales.divide(xb, scale), mantissa_bits, min_exponent, max_value
    )
    return blocks.merge(y * scale).astype(x.dtype)

  return jax.vmap(one)(*numbers)
