"""quantize_rows: activations to int8 or packed int4 in one pass."""

import functools
import importlib

import jax

from lowbit import formats, quantize
from lowbit.kernels import choice
from lowbit.kernels.quantize_rows import reference


def quantize_rows(
  x: jax.Array,
  spec: quantize.Spec | str = 'int8@token',
  *,
  implementation: choice.Implementation = None,
  interpret: bool = False,
) -> quantize.QTensor | quantize.PackedQTensor:
  """The same as `quantize` (and `pack`, for 4 bits), bit for bit, in one pass.

  Args:
    x: float32, bfloat16 or float16 [M, K].
    spec: int8 or int4 with absmax scales for rows or groups of K:
      'int8@token', 'int4@g128', ...
    implementation: None for the best of the platform that the program is
      lowered for.
    interpret: Runs a Pallas kernel as plain JAX, for tests on any machine.

  Returns:
    A QTensor for 8 bits, a PackedQTensor for 4.

  Raises:
    TypeError: If x is not floating point.
    ValueError: If x is no matrix, the spec another, or the implementation
      cannot be.
  """
  quantize.check_float(x)
  spec = quantize.Spec.parse(spec)
  fmt, rows = spec.format, spec.block in ('token', 'channel')
  good = fmt in (formats.get('int8'), formats.get('int4')) and (
    (rows or isinstance(spec.block, int))
    and spec.scale == quantize.Absmax()
    and spec.scale_format is None
    and spec.rounding == 'nearest'
  )
  if not good or x.ndim != 2:
    raise ValueError(
      '`x` must be a matrix and `spec` int8 or int4 with absmax scales for '
      f"rows or groups, got {x.shape} and {spec}. Use 'int8@token', or "
      'lowbit.quantize, which takes every spec.'
    )
  options = _candidates(spec, interpret)
  choice.check('quantize_rows', options, implementation, interpret, x)
  if implementation is None:
    choice.warn_fallback('quantize_rows', options, x)
  return _run(x, spec, implementation, interpret)


@functools.partial(jax.jit, static_argnums=(1, 2, 3))
def _run(x, spec, implementation, interpret):
  return choice.run(_candidates(spec, interpret), implementation, x)


def _candidates(spec, interpret: bool) -> tuple[choice.Candidate, ...]:
  bits = spec.format.bits

  def group(x):
    size = x.shape[1]
    return min(spec.block, size) if isinstance(spec.block, int) else size

  def on(name, module_name):
    module = lambda: importlib.import_module(
      f'lowbit.kernels.quantize_rows.{module_name}'
    )

    def run(x):
      codes, scale = module().quantize_rows(x, bits, group(x), interpret)
      if bits == 8:
        return quantize.QTensor(codes, scale, None, spec, (-1,))
      return quantize.PackedQTensor(codes, scale, None, x.shape[1], spec, (-1,))

    def reasons(x):
      found = module().reasons(x, bits, group(x))
      if x.shape[1] % max(group(x), 1):
        found.append(f'groups of {group(x)} do not divide K={x.shape[1]}')
      return found

    return choice.Candidate(name, run, reasons)

  return (
    on('tpu', 'pallas_tpu'),
    on('gpu', 'pallas_gpu'),
    choice.Candidate('xla', lambda x: reference.quantize_rows(x, spec)),
    choice.Candidate('reference', lambda x: reference.quantize_rows(x, spec)),
  )
