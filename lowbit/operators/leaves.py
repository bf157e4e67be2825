"""Leaves of the expression: codes, a matrix, low rank, sparse."""

import dataclasses
import math

import jax
import jax.numpy as jnp

from lowbit import kernels, quantize
from lowbit.operators import base


def node(cls):
  """Registers a frozen dataclass as a pytree node."""
  return jax.tree_util.register_dataclass(
    dataclasses.dataclass(frozen=True)(cls)
  )


@node
class Matrix(base.Operator):
  """A float matrix."""

  w: jax.Array  # [in, out].

  @property
  def shape(self):
    """(in, out)."""
    return self.w.shape[-2:]

  @property
  def size(self):
    """Number of weights, stacked layers included."""
    return self.w.size

  def dense(self):
    """The matrix as float32."""
    return self.w.astype(jnp.float32)


@node
class Coded(base.Operator):
  """A quantized matrix, plain or packed.

  Packed codes are multiplied by `kernels.dequant_matmul`, which never makes the
  matrix; plain ones are decoded whole.
  """

  q: quantize.QTensor | quantize.PackedQTensor  # [in, out].

  @property
  def _unpacked(self):
    if isinstance(self.q, quantize.PackedQTensor):
      return quantize.unpack(self.q)
    return self.q

  @property
  def shape(self):
    """(in, out)."""
    return kernels.shape(self.q)[-2:]

  @property
  def size(self):
    """Number of weights, stacked layers included."""
    return math.prod(kernels.shape(self.q))

  def dense(self):
    """The decoded matrix, float32."""
    return quantize.dequantize(self._unpacked)

  @property
  def _has_kernel(self) -> bool:
    is_packed = isinstance(self.q, quantize.PackedQTensor)
    return is_packed and len(kernels.shape(self.q)) == 2

  def product(self, x, precision=None):
    """x W; from packed codes by a kernel."""
    if not self._has_kernel:
      return super().product(x, precision)
    return kernels.dequant_matmul(x, self.q, precision=precision)

  def apply(self, x, precision=None):
    """See `Operator.apply`; a kernel takes bfloat16 as it is."""
    if not self._has_kernel:
      return super().apply(x, precision)
    self.check_input(x)
    return kernels.dequant_matmul(x, self.q, precision=precision)

  def pack(self) -> 'Coded':
    """The same matrix with packed codes; wider ones than 8 bits stay."""
    if isinstance(self.q, quantize.PackedQTensor):
      return self
    return Coded(_pack(self.q))


@node
class LowRank(base.Operator):
  """u v, of rank r."""

  u: jax.Array  # [in, r].
  v: jax.Array  # [r, out].

  @property
  def shape(self):
    """(in, out)."""
    return self.u.shape[-2], self.v.shape[-1]

  def dense(self):
    """u v, float32."""
    return jnp.matmul(
      self.u.astype(jnp.float32),
      self.v.astype(jnp.float32),
      precision='highest',
    )

  def product(self, x, precision=None):
    """(x u) v."""
    y = jnp.matmul(x, self.u.astype(jnp.float32), precision=precision)
    return jnp.matmul(y, self.v.astype(jnp.float32), precision=precision)


@node
class Sparse(base.Operator):
  """A few entries, as coordinates; repeated coordinates add up."""

  rows: jax.Array  # int32 [n], into in.
  columns: jax.Array  # int32 [n], into out.
  values: jax.Array  # [n].
  dims: tuple[int, int] = dataclasses.field(metadata={'static': True})  # Shape.

  @property
  def shape(self):
    """(in, out)."""
    return self.dims

  def dense(self):
    """The matrix, zeros where there is no entry."""
    zeros = jnp.zeros(self.dims, jnp.float32)
    return zeros.at[self.rows, self.columns].add(
      self.values.astype(jnp.float32)
    )


def _pack(q: quantize.QTensor):
  packs = q.spec.format.bits <= 8 and q.ndim > 0
  return quantize.pack(q) if packs else q


def pack(tree):
  """The same params with the codes packed, so that kernels serve them.

  Args:
    tree: Params with QTensors and operators in it, or one of these. QTensors
      with codes of more than 8 bits stay as they are.
  """
  is_coded = lambda x: isinstance(x, quantize.QTensor)
  return jax.tree.map(
    lambda x: _pack(x) if is_coded(x) else x, tree, is_leaf=is_coded
  )


def decode(tree):
  """The same operators with every `Coded` as the `Matrix` that it stands for.

  For repeated use of one set of weights: the codes are decoded once.

  Args:
    tree: Params with operators in it, or one operator.
  """
  is_coded = lambda x: isinstance(x, Coded)
  return jax.tree.map(
    lambda x: Matrix(x.dense()) if is_coded(x) else x, tree, is_leaf=is_coded
  )
