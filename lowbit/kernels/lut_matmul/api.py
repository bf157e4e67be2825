"""lut_matmul: x W by lookups in tables of sums of activations."""

import functools
import importlib

import jax
import jax.numpy as jnp
import numpy as np

from lowbit import quantize
from lowbit.kernels import choice
from lowbit.kernels.lut_matmul import layout, reference, xla


def lut_matmul(
  x: jax.Array,
  w: layout.LutWeight,
  *,
  quantize_tables: bool = False,
  implementation: choice.Implementation = None,
  interpret: bool = False,
) -> jax.Array:
  """x W, linear in the bits of W: b K / 4 lookups and additions an output.

  Differentiable in x, through the dense matrix.

  Args:
    x: Float array [..., K].
    w: From `lut_weight`.
    quantize_tables: int8 tables with a scale for each 64 activations. It is an
      approximation: about the error of int8 activations, and more below 4 bits.
    implementation: None for the best of the platform that the program is
      lowered for; 'tpu' and 'gpu' select entries on the vector units.
    interpret: Runs a Pallas kernel as plain JAX, for tests on any machine.

  Returns:
    [..., N] in the dtype of x, summed in float32.

  Raises:
    TypeError: If x is not floating point, or w no `LutWeight`.
    ValueError: If shapes do not match, or the implementation cannot be.
  """
  quantize.check_float(x)
  if not isinstance(w, layout.LutWeight):
    raise TypeError(
      f'`w` must be a LutWeight, got {type(w).__name__}. Make it with '
      'lut_weight(quantized).'
    )
  if x.ndim == 0 or x.shape[-1] != w.shape[0]:
    raise ValueError(
      f'The last axis of `x` {x.shape} must be {w.shape[0]} long, as `w`'
      f' {w.shape} has rows.'
    )
  rows = x.reshape(-1, w.shape[0])
  options = _candidates(quantize_tables, interpret)
  choice.check('lut_matmul', options, implementation, interpret, rows, w)
  if implementation is None:
    choice.warn_fallback('lut_matmul', options, rows, w)
  y = _product(rows, w, quantize_tables, implementation, interpret)
  return y.reshape(*x.shape[:-1], w.shape[1])


def _arguments(x, w, quantized: bool):
  table, scale = layout.tables(x), None
  if quantized:
    table, scale = layout.quantize_tables(table)
  return table, scale, w, layout.sums(x)


@functools.partial(jax.jit, static_argnums=(2, 3, 4))
def _product(x, w, quantized, implementation, interpret):
  @jax.custom_vjp
  def product(x, w):
    return choice.run(_candidates(quantized, interpret), implementation, x, w)

  def backward(saved, dy):
    w, like = saved
    dx = jnp.matmul(dy.astype(jnp.float32), dense(w).T).astype(like.dtype)
    return dx, jax.tree.map(_no_gradient, w)

  product.defvjp(
    lambda x, w: (product(x, w), (w, jnp.zeros((), x.dtype))), backward
  )
  return product(x, w)


def _no_gradient(a):
  """Zeros of the tangent type of a leaf."""
  if jnp.issubdtype(a.dtype, jnp.floating):
    return jnp.zeros_like(a)
  return np.zeros(a.shape, jax.dtypes.float0)


def dense(w: layout.LutWeight) -> jax.Array:
  """The matrix, float32 [K, N]: the product with the identity."""
  eye = jnp.eye(w.shape[0], dtype=jnp.float32)
  return reference.lut_matmul(*_arguments(eye, w, False))


def _candidates(quantized: bool, interpret: bool):
  module = lambda name: importlib.import_module(
    f'lowbit.kernels.lut_matmul.pallas_{name}'
  )

  def on_tpu(x, w):  # Makes the tables itself.
    run = module('tpu').lut_matmul
    return run(x, w, quantized=quantized, interpret=interpret)

  def on_gpu(*args):
    return module('gpu').lut_matmul(*args, interpret=interpret)

  def with_tables(run):
    return lambda x, w: run(*_arguments(x, w, quantized)).astype(x.dtype)

  return (
    choice.Candidate('tpu', on_tpu, lambda x, w: module('tpu').reasons(x, w)),
    choice.Candidate(
      'gpu', with_tables(on_gpu), lambda x, w: module('gpu').reasons(x, w)
    ),
    choice.Candidate('xla', with_tables(xla.lut_matmul)),
    choice.Candidate('reference', with_tables(reference.lut_matmul)),
  )
