"""Many formats in one compiled program: the format is data."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from lowbit import formats
from lowbit.quantize import blocking, estimators, fused, qtensor, scales
from lowbit.quantize import spec as spec_lib

_DTYPES = (np.int32, np.int32, np.float32, np.float32, np.bool_, np.float32)


def layout(spec: spec_lib.Spec | str) -> spec_lib.Spec:
  """What of a spec is static when its format is data: all but the format.

  Returns:
    The spec with the format int8, whatever it was, so that two specs have one
    layout exactly if they can share a program.

  Raises:
    ValueError: If the format is no float grid that saturates, or the spec has
      more than a symmetric scale and nearest rounding.
  """
  spec = spec_lib.Spec.parse(spec)
  fmt = spec.format
  if fmt.grid is None or not getattr(fmt, 'saturate', True):
    raise ValueError(
      f'{fmt.name} is not a float grid that saturates. Quantize it by '
      '`quantize`.'
    )
  if spec.rounding != 'nearest' or spec.zero_point:
    raise ValueError(
      f'The format of {spec} cannot be data: specs of a sweep must share their '
      'block and scale, have no zero point, and round to nearest.'
    )
  if isinstance(spec.scale, scales.Entropy):
    raise ValueError(
      'The rule entropy counts the levels of each format, and is no part of a '
      f'sweep; got {spec}. Quantize each by `quantize`.'
    )
  return dataclasses.replace(spec, format=formats.Integer(8))


def numbers_of(spec: spec_lib.Spec | str) -> tuple[np.ndarray, ...]:
  """The numbers of a spec's format, to be traced: scalars, as in `FloatGrid`.

  Raises:
    ValueError: If the format has none.
  """
  layout(spec)
  grid = dataclasses.astuple(spec_lib.Spec.parse(spec).format.grid)
  return tuple(np.asarray(n, t) for n, t in zip(grid, _DTYPES))


def fake_quantize_as(
  x: jax.Array,
  numbers: tuple[jax.Array, ...],
  layout: spec_lib.Spec,
  axis: int | tuple[int, ...] = -1,
) -> jax.Array:
  """`fake_quantize` in a format that is data, with dy/dx = 1.

  Args:
    x: Float array.
    numbers: From `numbers_of`; may be traced.
    layout: From `layout` of the same spec.
    axis: The contraction axis or axes.

  Returns:
    An array like `x`, as `fake_quantize` gives it for the spec, bit for bit.
  """
  qtensor.check_float(x)
  axis = blocking.normalize_axis(axis, x.ndim) if x.ndim else ()
  blocks = qtensor.blocks_of(x.shape, layout, axis)
  constant = jax.lax.stop_gradient(x)
  y = _one(constant, numbers, layout, axis, blocks)
  return estimators.straight_through(x, y, None)


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
  common = layout(parsed[0])
  for spec in parsed:
    if layout(spec) != common:
      raise ValueError(
        '`specs` must share their block and scale, and round to nearest; '
        f'{spec} differs from {parsed[0]}. Call once for each block and scale.'
      )
  axis = blocking.normalize_axis(axis, x.ndim) if x.ndim else ()
  blocks = qtensor.blocks_of(x.shape, common, axis)
  grids = [numbers_of(spec) for spec in parsed]
  numbers = [np.stack(column) for column in zip(*grids)]
  return _sweep(jnp.asarray(x), numbers, common, axis, blocks)


@functools.partial(jax.jit, static_argnums=(2, 3, 4))
def _sweep(x, numbers, common, axis, blocks):
  one = lambda *numbers: _one(x, numbers, common, axis, blocks)
  return jax.vmap(one)(*numbers)


@functools.partial(jax.jit, static_argnums=(2, 3, 4))
def _one(x, numbers, common, axis, blocks):
  fmt = formats.GridFormat(formats.FloatGrid(*numbers))
  spec = dataclasses.replace(common, format=fmt)
  return fused.through(x, None, spec, axis, blocks)[0]
