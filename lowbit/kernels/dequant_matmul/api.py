"""dequant_matmul: x W for W in few bits, decoded on the way."""

import functools
import importlib
import math

import jax
import numpy as np

from lowbit import quantize
from lowbit.kernels import choice, operands
from lowbit.kernels.dequant_matmul import reference, xla

DTYPES = ('float32', 'bfloat16')  # Of x, in the kernels.


def dequant_matmul(
  x: jax.Array,
  w: operands.Weight,
  *,
  implementation: choice.Implementation = None,
  precision=None,
  tiles=None,
  interpret: bool = False,
) -> jax.Array:
  """x W, with the weights read at their stored width.

  Differentiable in x, and in float scales and zero points of w, through the
  dense matrix.

  Args:
    x: Float array [..., K].
    w: QTensor or PackedQTensor [K, N], quantized along K (axis -2): any spec;
      kernels take what `explain` says.
    implementation: None for the best of the platform that the program is
      lowered for; 'tpu' and 'gpu' are Pallas kernels, 'xla' decodes a chunk at
      a time, 'reference' decodes all of w.
    precision: Of the products, as in `jax.lax.dot_general`.
    tiles: `tuned.TpuTiles` or `tuned.GpuTiles` to use, for measurements.
    interpret: Runs a Pallas kernel as plain JAX, for tests on any machine.

  Returns:
    [..., N] in the dtype of x, summed in float32.

  Raises:
    TypeError: If x is not floating point, or w no quantized tensor.
    ValueError: If the shapes do not fit, the packed bytes do not fit the shape,
      or the implementation cannot be: with all reasons.
  """
  quantize.check_float(x)
  if not isinstance(w, quantize.QTensor | quantize.PackedQTensor):
    raise TypeError(
      f'`w` must be a QTensor or a PackedQTensor, got {type(w).__name__}. '
      'Quantize it with lowbit.quantize(w, spec, axis=0).'
    )
  operands.check(w)
  shape = operands.shape(w)
  if len(shape) != 2 or x.ndim == 0 or x.shape[-1] != shape[0]:
    raise ValueError(
      f'`w` {shape} must be a matrix [K, N], and the last axis of `x` '
      f'{x.shape} K long.'
    )
  rows = x.reshape(-1, shape[0])
  options = _candidates(precision, tiles, interpret)
  name = 'dequant_matmul'
  choice.check(name, options, implementation, interpret, rows, w)
  if implementation is None:
    choice.warn_fallback(name, options, rows, w)
  y = _product(rows, w, implementation, precision, tiles, interpret)
  return y.reshape(*x.shape[:-1], shape[1])


def explain(x: jax.Array, w: operands.Weight) -> dict[str, list[str]]:
  """For each implementation why it cannot take x and w; empty if it can."""
  rows = jax.ShapeDtypeStruct((math.prod(x.shape[:-1]), x.shape[-1]), x.dtype)
  return choice.explain(_candidates(None, None, False), rows, w)


@functools.partial(jax.jit, static_argnums=(2, 3, 4, 5))
def _product(x, w, implementation, precision, tiles, interpret):
  @jax.custom_vjp
  def product(x, w):
    options = _candidates(precision, tiles, interpret)
    return choice.run(options, implementation, x, w)

  def forward(x, w):
    return product(x, w), (x, w)

  def backward(saved, dy):
    dense = functools.partial(reference.dequant_matmul, precision=precision)
    return jax.vjp(dense, *saved)[1](dy)

  product.defvjp(forward, backward)
  return product(x, w)


def _candidates(precision, tiles, interpret) -> tuple[choice.Candidate, ...]:
  def on(name, module_name):
    def run(x, w):
      module = _module(module_name)
      return module.dequant_matmul(
        x,
        operands.take_apart(w),
        out_dtype=x.dtype,
        tiles=tiles,
        precision=precision,
        interpret=interpret,
      )

    def reasons(x, w):
      found = operands.why_not(w)
      if not found:
        op = jax.eval_shape(operands.take_apart, w)
        found = list(_module(module_name).reasons(x, op))
      return _bad_dtype(x) + found

    return choice.Candidate(name, run, reasons)

  def run_xla(x, w):
    return xla.dequant_matmul(
      x, operands.take_apart(w), out_dtype=x.dtype, precision=precision
    )

  def run_reference(x, w):
    return reference.dequant_matmul(x, w, precision)

  return (
    on('tpu', 'pallas_tpu'),
    on('gpu', 'pallas_gpu'),
    choice.Candidate('xla', run_xla, lambda x, w: operands.why_not(w)),
    choice.Candidate('reference', run_reference),
  )


def _module(name: str):
  """A kernel's module, when it is needed: Pallas is slow to import."""
  return importlib.import_module(f'lowbit.kernels.dequant_matmul.{name}')


def _bad_dtype(x) -> list[str]:
  if np.dtype(x.dtype).name in DTYPES:
    return []
  return [f'x is {x.dtype}, and the kernel takes {" and ".join(DTYPES)}']
