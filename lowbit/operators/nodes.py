"""Inner nodes of the expression: what is done around a matrix."""

import dataclasses

import jax
import jax.numpy as jnp

from lowbit import quantize, transforms
from lowbit.operators import base, leaves


@leaves.node
class Sum(base.Operator):
  """a + b, of one shape."""

  a: base.Operator
  b: base.Operator

  @property
  def shape(self):
    """(in, out)."""
    return self.a.shape

  @property
  def size(self):
    """Number of weights, stacked layers included."""
    return self.a.size

  def dense(self):
    """The sum of the matrices."""
    return self.a.dense() + self.b.dense()

  def product(self, x, precision=None):
    """x a + x b."""
    return self.a.product(x, precision) + self.b.product(x, precision)


@leaves.node
class Scaled(base.Operator):
  """diag(in_scale) W diag(out_scale); a scale that is None is 1."""

  op: base.Operator
  in_scale: jax.Array | None = None  # [in].
  out_scale: jax.Array | None = None  # [out].

  @property
  def shape(self):
    """(in, out)."""
    return self.op.shape

  @property
  def size(self):
    """Number of weights, stacked layers included."""
    return self.op.size

  def dense(self):
    """The scaled matrix."""
    w = self.op.dense()
    if self.in_scale is not None:
      w = jnp.einsum('i,io->io', self.in_scale.astype(jnp.float32), w)
    return w if self.out_scale is None else _times(w, self.out_scale)

  def product(self, x, precision=None):
    """((x * in_scale) W) * out_scale."""
    if self.in_scale is not None:
      x = _times(x, self.in_scale)
    y = self.op.product(x, precision)
    return y if self.out_scale is None else _times(y, self.out_scale)


def _times(x, scale):
  return jnp.einsum('...i,i->...i', x, scale.astype(jnp.float32))


@leaves.node
class Rotated(base.Operator):
  """L W R for orthogonal L [in, in] and R [out, out]; None is the identity.

  A rotation is a static `transforms.Hadamard`, or a pytree with `__call__(x)`
  that returns x times its matrix.
  """

  op: base.Operator
  left: transforms.Hadamard | None = dataclasses.field(
    default=None, metadata={'static': True}
  )
  right: transforms.Hadamard | None = dataclasses.field(
    default=None, metadata={'static': True}
  )

  @property
  def shape(self):
    """(in, out)."""
    return self.op.shape

  @property
  def size(self):
    """Number of weights, stacked layers included."""
    return self.op.size

  def dense(self):
    """L W R."""
    w = self.op.dense()
    if self.left is not None:  # L W = (W^T L^T)^T.
      w = self.left.inverse(w.T).T
    return w if self.right is None else self.right(w)

  def product(self, x, precision=None):
    """((x L) W) R."""
    x = x if self.left is None else self.left(x)
    y = self.op.product(x, precision)
    return y if self.right is None else self.right(y)


@leaves.node
class Permuted(base.Operator):
  """An operator that takes its inputs in another order: x[..., order] W."""

  op: base.Operator
  order: jax.Array  # int32 [in], a permutation.

  @property
  def shape(self):
    """(in, out)."""
    return self.op.shape

  @property
  def size(self):
    """Number of weights, stacked layers included."""
    return self.op.size

  def dense(self):
    """W with its rows put back in place."""
    w = self.op.dense()
    return jnp.zeros_like(w).at[self.order].set(w)

  def product(self, x, precision=None):
    """x[..., order] W."""
    return self.op.product(jnp.take(x, self.order, axis=-1), precision)


@leaves.node
class Split(base.Operator):
  """Consecutive inputs go to different operators, and the results add up."""

  ops: tuple[base.Operator, ...]

  @property
  def shape(self):
    """(in, out)."""
    return sum(op.shape[0] for op in self.ops), self.ops[0].shape[1]

  def dense(self):
    """The matrices, stacked along the input axis."""
    return jnp.concatenate([op.dense() for op in self.ops])

  def product(self, x, precision=None):
    """The sum of each part's product."""
    start, y = 0, 0.0
    for op in self.ops:
      y = y + op.product(x[..., start : start + op.shape[0]], precision)
      start += op.shape[0]
    return y


@leaves.node
class QuantizeInput(base.Operator):
  """Quantizes x along its last axis before the product.

  The scales are dynamic: taken from x itself, at its own granularity.
  """

  op: base.Operator
  spec: quantize.Spec = dataclasses.field(metadata={'static': True})

  @property
  def shape(self):
    """(in, out)."""
    return self.op.shape

  @property
  def size(self):
    """Number of weights, stacked layers included."""
    return self.op.size

  def dense(self):
    """The matrix behind the quantization."""
    return self.op.dense()

  def product(self, x, precision=None):
    """fake_quantize(x) W, straight-through gradient."""
    return self.op.product(quantize.fake_quantize(x, self.spec), precision)
