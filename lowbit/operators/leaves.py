"""Leaves of the expression: codes, a matrix, low rank, sparse."""

import dataclasses
import math

import jax
import jax.numpy as jnp

from lowbit import quantize
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
  """A quantized matrix, plain or packed."""

  q: quantize.QTensor | quantize.PackedQTensor  # [in, out].

  @property
  def _unpacked(self):
    if isinstance(self.q, quantize.PackedQTensor):
      return quantize.unpack(self.q)
    return self.q

  @property
  def shape(self):
    """(in, out)."""
    return jax.eval_shape(lambda: self._unpacked).shape[-2:]

  @property
  def size(self):
    """Number of weights, stacked layers included."""
    return math.prod(jax.eval_shape(lambda: self._unpacked).shape)

  def dense(self):
    """The decoded matrix, float32."""
    return quantize.dequantize(self._unpacked)

  def pack(self) -> 'Coded':
    """The same matrix with packed codes."""
    if isinstance(self.q, quantize.PackedQTensor):
      return self
    return Coded(quantize.pack(self.q))


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
