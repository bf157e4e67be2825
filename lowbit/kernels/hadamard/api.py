"""hadamard: the transform of activations before a low-bit product."""

import functools
import importlib

import jax

from lowbit import quantize, transforms
from lowbit.kernels import choice
from lowbit.kernels.hadamard import reference


def hadamard(
  x: jax.Array,
  block: int | None = None,
  *,
  implementation: choice.Implementation = None,
  interpret: bool = False,
) -> jax.Array:
  """x (H / sqrt(block)) in blocks along the last axis.

  The same matrices as `transforms.hadamard`. Differentiable: the transform is
  linear, and its gradient is the transposed one.

  Args:
    x: Float array [..., K].
    block: Width of one transform; None for K.
    implementation: None for the best of the platform that the program is
      lowered for.
    interpret: Runs a Pallas kernel as plain JAX, for tests on any machine.

  Returns:
    Like x, computed in float32.

  Raises:
    TypeError: If x is not floating point.
    ValueError: If the block does not divide K, has no Hadamard matrix, or the
      implementation cannot be.
  """
  rows, block = _check(x, block)
  _choose(rows, block, None, implementation, interpret)
  return _linear(rows, block, implementation, interpret).reshape(x.shape)


def hadamard_quantize(
  x: jax.Array,
  block: int | None = None,
  spec: quantize.Spec | str = 'int8@token',
  *,
  implementation: choice.Implementation = None,
  interpret: bool = False,
) -> quantize.QTensor:
  """The transform and the quantization of what comes out, in one pass.

  Args:
    x: Float matrix [M, K].
    block: As in `hadamard`.
    spec: int4@token or int8@token.
    implementation: As in `hadamard`.
    interpret: As in `hadamard`.

  Returns:
    QTensor [M, K] of the rotated rows.
  """
  rows, block = _check(x, block)
  spec = quantize.Spec.parse(spec)
  good = (quantize.Spec.parse(f'int{b}@token') for b in (4, 8))
  if x.ndim != 2 or spec not in tuple(good):
    raise ValueError(
      '`x` must be a matrix and `spec` int4@token or int8@token, got '
      f'{x.shape} and {spec}. Other specs: quantize(hadamard(x), spec).'
    )
  _choose(rows, block, spec, implementation, interpret)
  codes, scale = _run(rows, block, spec, implementation, interpret)
  return quantize.QTensor(codes, scale, None, spec, (-1,))


def _check(x, block):
  quantize.check_float(x)
  if x.ndim == 0:
    raise ValueError('`x` is a scalar; a transform needs an axis.')
  block = x.shape[-1] if block is None else block
  if block < 1 or x.shape[-1] % block:
    raise ValueError(
      f'`block` {block} does not divide the width {x.shape[-1]} of `x`.'
    )
  transforms.hadamard.hadamard_matrix(block)  # Raises if there is none.
  return x.reshape(-1, x.shape[-1]), block


def _choose(rows, block, spec, implementation, interpret) -> None:
  options = _candidates(block, spec, interpret)
  choice.check('hadamard', options, implementation, interpret, rows)
  if implementation is None:
    choice.warn_fallback('hadamard', options, rows)


@functools.partial(jax.jit, static_argnums=(1, 2, 3, 4))
def _run(x, block, spec, implementation, interpret):
  return choice.run(_candidates(block, spec, interpret), implementation, x)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3))
def _linear(x, block, implementation, interpret):
  return _run(x, block, None, implementation, interpret)


def _backward(block, implementation, interpret, saved, dy):
  del implementation, interpret, saved
  back = transforms.hadamard.apply_hadamard(dy, block, transpose=True)
  return (back,)


_linear.defvjp(lambda x, *static: (_linear(x, *static), None), _backward)


def _candidates(block, spec, interpret: bool) -> tuple[choice.Candidate, ...]:
  high = None if spec is None else spec.format.high

  def on(name, module_name):
    module = lambda: importlib.import_module(
      f'lowbit.kernels.hadamard.{module_name}'
    )
    run = lambda x: module().hadamard(x, block, high, interpret)
    return choice.Candidate(name, run, lambda x: module().reasons(x, block))

  plain = lambda x: reference.hadamard(x, block, spec)
  return (
    on('tpu', 'pallas_tpu'),
    on('gpu', 'pallas_gpu'),
    choice.Candidate('xla', plain),
    choice.Candidate('reference', plain),
  )
