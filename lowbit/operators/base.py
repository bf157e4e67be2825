"""What an operator is, and the two functions that take one from outside."""

import math

import jax
import jax.numpy as jnp

from lowbit import quantize


class Operator:
  """A linear map of the last axis: x [..., in] -> [..., out].

  Subclasses are frozen dataclasses registered as pytrees. All arithmetic is in
  float32; the result has the dtype of `x`.
  """

  @property
  def shape(self) -> tuple[int, int]:
    """(in, out)."""
    raise NotImplementedError

  @property
  def size(self) -> int:
    """Number of weights that it stands for, stacked layers included."""
    return math.prod(self.shape)

  def dense(self) -> jax.Array:
    """The matrix W, float32 [in, out]."""
    raise NotImplementedError

  def product(self, x: jax.Array, precision=None) -> jax.Array:
    """x W in float32, for a float32 x [..., in]."""
    return jnp.matmul(x, self.dense(), precision=precision)

  def apply(self, x: jax.Array, precision=None) -> jax.Array:
    """x W in the dtype of x, for x [..., in].

    Raises:
      TypeError: If `x` is not floating point.
      ValueError: If its last axis is not `shape[0]`.
    """
    self.check_input(x)
    return self.product(x.astype(jnp.float32), precision).astype(x.dtype)

  def check_input(self, x: jax.Array) -> None:
    """Raises unless x is a float array [..., in]."""
    quantize.check_float(x)
    if x.ndim == 0 or x.shape[-1] != self.shape[0]:
      raise ValueError(
        f'The last axis of `x` {x.shape} must have length {self.shape[0]}, the '
        f'number of inputs of {type(self).__name__} {self.shape}.'
      )

  def bits(self) -> int:
    """Bits at rest, side data included; see `quantize.bits`."""
    return quantize.bits(self)


def as_operator(w) -> Operator:
  """An operator as it is; a QTensor [in, out] or matrix as a leaf."""
  from lowbit.operators import leaves

  if isinstance(w, Operator):
    return w
  if isinstance(w, quantize.QTensor | quantize.PackedQTensor):
    return leaves.Coded(w)
  quantize.check_float(w, 'w')
  return leaves.Matrix(w)


def matmul(x: jax.Array, w, precision=None) -> jax.Array:
  """x @ w for a float matrix, a QTensor, or an operator.

  Args:
    x: Float array [..., in].
    w: Matrix [in, out], QTensor or PackedQTensor of that shape, or Operator.
    precision: As in `jax.lax.dot_general`.

  Returns:
    [..., out] in the dtype of `x`.
  """
  return as_operator(w).apply(x, precision)


def bits(tree) -> int:
  """Bits at rest of a params tree with operators and QTensors in it."""
  return quantize.bits(tree)


def bits_per_weight(tree) -> float:
  """Bits at rest over the number of weights that the tree stands for."""
  is_whole = lambda x: isinstance(
    x, Operator | quantize.QTensor | quantize.PackedQTensor
  )
  count = 0
  for leaf in jax.tree.leaves(tree, is_leaf=is_whole):
    if isinstance(leaf, quantize.PackedQTensor):
      leaf = jax.eval_shape(quantize.unpack, leaf)
    count += leaf.size if isinstance(leaf, Operator) else math.prod(leaf.shape)
  if not count:
    raise ValueError('`tree` holds no weights.')
  return bits(tree) / count
