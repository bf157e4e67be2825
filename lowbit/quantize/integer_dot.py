"""Products in integers alone: with zero points, and of signs.

The identities of Gholami et al., A Survey of Quantization Methods for Efficient
Neural Network Inference, 2021 (arXiv:2103.13630), and Wu et al., 2020
(arXiv:2004.09602).
"""

import jax
import jax.numpy as jnp

from lowbit import formats
from lowbit.quantize import qtensor


@jax.jit
def integer_matmul(x: qtensor.QTensor, w: qtensor.QTensor) -> jax.Array:
  """x w^T from an int32 product of codes and, for zero points, three terms.

  y = s_x s_w (sum x w - z_w sum x - z_x sum w + K z_x z_w), over codes. The
  term of z_w depends on the data: why weights are best symmetric.

  Args:
    x: Integers [m, K], one scale for the tensor or a row.
    w: Integers [n, K], likewise.

  Returns:
    float32 [m, n], that of the decoded matrices but for float rounding.

  Raises:
    ValueError: If the formats are no integers, or scales change along K.
  """
  for name, q in (('x', x), ('w', w)):
    _check(name, q)
  if x.shape[1] != w.shape[1]:
    raise ValueError(
      f'`x` [m, K] and `w` [n, K] must share K, got {x.shape} and {w.shape}.'
    )
  a, b = x.codes.astype(jnp.int32), w.codes.astype(jnp.int32)
  total = jax.lax.dot_general(
    a, b, (((1,), (1,)), ((), ())), preferred_element_type=jnp.int32
  )
  zeros = [None if q.zero is None else q.zero.astype(jnp.int32) for q in (x, w)]
  z_x, z_w = zeros[0], None if zeros[1] is None else zeros[1].T
  if z_w is not None:
    total = total - z_w * jnp.sum(a, axis=1, keepdims=True)
  if z_x is not None:
    total = total - z_x * jnp.sum(b, axis=1)[None]
  if z_x is not None and z_w is not None:
    total = total + jnp.int32(x.shape[1]) * z_x * z_w
  scale = qtensor.scales_of(x) * qtensor.scales_of(w).T
  return total.astype(jnp.float32) * scale


def _check(name, q) -> None:
  is_whole = isinstance(q.spec.format, formats.Integer)
  if q.ndim != 2 or not is_whole or q.scale.shape[1] != 1 or q.axis != (-1,):
    raise ValueError(
      f'`{name}` must be a matrix of integers with one scale for the tensor or '
      f'for each row, such as int8@channel; got {q.spec} of shape {q.shape}.'
    )


@jax.jit
def xnor_dot(a: jax.Array, b: jax.Array, size: jax.Array | int) -> jax.Array:
  """The dot product of packed signs: 2 popcount(xnor(a, b)) - n.

  Args:
    a: uint8 [..., bytes], n signs packed alike in both (`packing.pack_codes`
      with 1 bit, or `lowbit.pack` of int1); bits behind the n-th are equal in
      both, as packing leaves them.
    b: uint8 [..., bytes], broadcasts against a.
    size: n.

  Returns:
    int32 [...].

  Raises:
    TypeError: If `a` or `b` is not uint8.
  """
  if a.dtype != jnp.uint8 or b.dtype != jnp.uint8:
    raise TypeError(
      f'`a` and `b` must be packed bytes, uint8; got {a.dtype} and {b.dtype}.'
    )
  differ = jax.lax.population_count(a ^ b).astype(jnp.int32)
  return size - 2 * jnp.sum(differ, axis=-1)
