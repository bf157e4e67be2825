"""ternary_matmul: what BitNet's training computes, from packed weights."""

import jax
import jax.numpy as jnp

from lowbit import formats, quantize
from lowbit.kernels import choice, int_matmul, operands
from lowbit.kernels.ternary_matmul import reference

LAYOUTS = {1.6: 'ternary@tensor', 2: 'int2@tensor'}


def absmean(w: jax.Array, bits: float = 1.6) -> quantize.PackedQTensor:
  """Packed ternary weights of latent ones, with the mean of |w| as the scale.

  Args:
    w: Float matrix [K, N].
    bits: 1.6, five weights in a byte; or 2, four in a byte.

  Raises:
    TypeError: If w is not floating point.
    ValueError: For other bits, or if w is no matrix.
  """
  quantize.check_float(w, 'w')
  if bits not in LAYOUTS or w.ndim != 2:
    raise ValueError(
      f'`bits` must be 1.6 or 2 and `w` a matrix, got {bits} and {w.shape}.'
    )
  spec = quantize.Spec.parse(LAYOUTS[bits])
  scale = reference.mean_of(w)
  codes = jnp.clip(jnp.rint(w.astype(jnp.float32) / scale), -1.0, 1.0)
  q = quantize.QTensor(
    codes.astype(jnp.int8), scale.reshape(1, 1), None, spec, (-2,)
  )
  return quantize.pack(q)


def ternary_matmul(
  x: jax.Array,
  w: operands.Weight,
  *,
  implementation: choice.Implementation = None,
  interpret: bool = False,
) -> jax.Array:
  """x, quantized to int8 by rows, times ternary weights; sums are exact.

  The same integers as `reference.bit_linear`, the forward pass of training.
  Differentiable in x, straight through. arXiv:2402.17764, arXiv:2410.16144.

  Args:
    x: Float array [..., K].
    w: QTensor or PackedQTensor [K, N] of format ternary (1.6 bits) or int2
      (2 bits), along axis -2; from `absmean`.
    implementation: None for the best of the platform that the program is
      lowered for; kernels are those of `int_matmul`.
    interpret: Runs a Pallas kernel as plain JAX, for tests on any machine.

  Returns:
    [..., N] in the dtype of x.

  Raises:
    TypeError: If x is not floating point, or w no quantized tensor.
    ValueError: If w is not ternary, or shapes do not match.
  """
  if not isinstance(w, operands.Weight):
    raise TypeError(f'`w` must be a quantized tensor, got {type(w).__name__}.')
  if w.spec.format not in (formats.get('ternary'), formats.get('int2')):
    raise ValueError(
      f'`w` must have values -1, 0 and 1: format ternary or int2, got {w.spec}.'
    )
  return int_matmul.quantized_matmul(
    x, w, 'int8@token', implementation=implementation, interpret=interpret
  )
