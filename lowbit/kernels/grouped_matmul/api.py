"""grouped_matmul: rows, sorted by expert, times low-bit expert weights."""

import functools
import importlib

import jax
import jax.numpy as jnp

from lowbit import quantize
from lowbit.kernels import choice, operands
from lowbit.kernels.grouped_matmul import reference, xla


def grouped_matmul(
  x: jax.Array,
  w: operands.Weight,
  group_sizes: jax.Array,
  *,
  implementation: choice.Implementation = None,
  interpret: bool = False,
) -> jax.Array:
  """Each row times the matrix of its expert (MoQE, arXiv:2310.02410).

  Differentiable in x, and in the scales of w, through the decoded matrices.

  Args:
    x: float32 or bfloat16 [T, K]; rows of one expert lie together, experts
      in order.
    w: QTensor or PackedQTensor [E, K, N], quantized along axis -2.
    group_sizes: Integers [E], rows of each expert; rows behind their sum have
      no expert, and give zeros.
    implementation: None for the best of the platform that the program is
      lowered for; 'tpu' and 'gpu' decode a chunk of an expert at a time.
    interpret: Runs a Pallas kernel as plain JAX, for tests on any machine.

  Returns:
    [T, N] in the dtype of x, summed in float32.

  Raises:
    TypeError: If x is not floating point, w no quantized tensor, or the sizes
      no integers.
    ValueError: If shapes do not match, or the implementation cannot be.
  """
  _check(x, w, group_sizes)
  options = _candidates(interpret)
  args = x, w, group_sizes
  choice.check('grouped_matmul', options, implementation, interpret, *args)
  if implementation is None:
    choice.warn_fallback('grouped_matmul', options, *args)
  return _product(*args, implementation, interpret)


def _check(x, w, group_sizes) -> None:
  quantize.check_float(x)
  if not isinstance(w, operands.Weight):
    raise TypeError(f'`w` must be a quantized tensor, got {type(w).__name__}.')
  if not jnp.issubdtype(group_sizes.dtype, jnp.integer):
    raise TypeError(f'`group_sizes` must be integers, got {group_sizes.dtype}.')
  shape = operands.shape(w)
  if len(shape) != 3 or w.axis != (-2,):
    raise ValueError(
      '`w` must be [E, K, N], quantized along axis -2, got '
      f'{shape}, axis {w.axis}.'
    )
  operands.check(w)
  if x.ndim != 2 or x.shape[1] != shape[1]:
    raise ValueError(
      f'`x` {x.shape} must be [T, {shape[1]}], as `w` {shape} has rows.'
    )
  if group_sizes.shape != shape[:1]:
    raise ValueError(
      f'`group_sizes` {group_sizes.shape} must have one size for each of the '
      f'{shape[0]} experts of `w`.'
    )


@functools.partial(jax.jit, static_argnums=(3, 4))
def _product(x, w, group_sizes, implementation, interpret):
  @jax.custom_vjp
  def product(x, w, group_sizes):
    options = _candidates(interpret)
    return choice.run(options, implementation, x, w, group_sizes)

  def forward(*args):
    return product(*args), args

  def backward(saved, dy):
    return jax.vjp(reference.grouped_matmul, *saved)[1](dy)

  product.defvjp(forward, backward)
  return product(x, w, group_sizes)


def _candidates(interpret: bool) -> tuple[choice.Candidate, ...]:
  def on(name, module_name):
    module = lambda: importlib.import_module(
      f'lowbit.kernels.grouped_matmul.{module_name}'
    )
    run = lambda *args: module().grouped_matmul(*args, interpret=interpret)
    return choice.Candidate(name, run, lambda *args: module().reasons(*args))

  def whole(x, w, group_sizes):
    del x, group_sizes
    one = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape[1:], a.dtype), w)
    return operands.why_not(one)

  return (
    on('tpu', 'pallas_tpu'),
    on('gpu', 'pallas_gpu'),
    choice.Candidate('xla', xla.grouped_matmul, whole),
    choice.Candidate('reference', reference.grouped_matmul),
  )
