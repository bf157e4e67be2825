"""Many formats in one compiled program: the format is data."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from lowbit import formats
from lowbit.quantize import blocking, fused, qtensor, scales
from lowbit.quantize import spec as spec_lib

_DTYPES = (np.int32, np.int32, np.float32, np.float32, np.bool_, np.float32)


def quantize_grid(
  x: jax.Array, specs, axis: int | tuple[int, ...] = -1
) -> jax.Array:
  """fake-quantizes `x` in many float and integer formats at once.

  The numbers of the formats are traced, so that as many other formats on the
  same blocks and scales do not compile again. The values are those of
  `fake_quantize`, bit for bit (but that of two scales with equal errors `mse`
  may choose the other one).

  Args:
    x: Float array.
    specs: Names or Specs that differ in their format only, each a float grid: a
      signed integer or a saturating minifloat. Any block, symmetric scale rule
      and scale format; nearest rounding. int4@g64 and e2m1@g64, or
      e2m1@b32:e8m0 and e4m3@b32:e8m0.
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
  common = parsed[0]
  for spec in parsed:
    if spec.format.grid is None or not getattr(spec.format, 'saturate', True):
      raise ValueError(
        f'{spec.format.name} is not a float grid that saturates. Quantize it '
        'by `quantize`.'
      )
    if spec.rounding != 'nearest' or (
      dataclasses.replace(common, format=spec.format) != spec
    ):
      raise ValueError(
        '`specs` must share their block and scale, and round to nearest; '
        f'{spec} differs from {common}. Call once for each block and scale.'
      )
  if isinstance(common.scale, scales.Entropy):
    raise ValueError(
      'The rule entropy counts the levels of each format, and is no part of a '
      f'sweep; got {common}. Quantize each by `quantize`.'
    )
  axis = blocking.normalize_axis(axis, x.ndim) if x.ndim else ()
  blocks = qtensor.blocks_of(x.shape, common, axis)
  grids = [dataclasses.astuple(spec.format.grid) for spec in parsed]
  numbers = [np.asarray(n, t) for n, t in zip(zip(*grids), _DTYPES)]
  # The first format must not decide which program this is.
  common = dataclasses.replace(common, format=formats.Integer(8))
  return _sweep(jnp.asarray(x), numbers, common, axis, blocks)


@functools.partial(jax.jit, static_argnums=(2, 3, 4))
def _sweep(x, numbers, common, axis, blocks):
  def one(*numbers):
    fmt = formats.GridFormat(formats.FloatGrid(*numbers))
    spec = dataclasses.replace(common, format=fmt)
    return fused.through(x, None, spec, axis, blocks)[0]

  return jax.vmap(one)(*numbers)
