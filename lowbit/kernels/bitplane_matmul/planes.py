"""Bit planes in words, and what number a code's bits stand for.

Every coding of the field is value = sum_i weights[i] b_i + offset, so that
  x w = sum_ij c_i d_j popcount(x_i & w_j)
        + o_w sum_i c_i popcount(x_i) + o_x sum_j d_j popcount(w_j) + K o_x o_w:
unsigned, two's complement (the top weight is negative), shifted by a zero
point, and bipolar, whose planes are signs. With one plane each, bipolar times
unsigned is 2 popcount(w & a) - popcount(a), and bipolar times bipolar the same
number as K - 2 popcount(w ^ a).
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

WORD = 32


@dataclasses.dataclass(frozen=True)
class Coding:
  """value = sum_i weights[i] * bit_i + offset."""

  weights: tuple[int, ...]
  offset: int = 0

  @property
  def bits(self) -> int:
    """Number of planes."""
    return len(self.weights)

  @staticmethod
  def unsigned(bits: int, zero: int = 0) -> 'Coding':
    """u - zero for u in 0..2^bits - 1."""
    return Coding(tuple(2**i for i in range(bits)), -zero)

  @staticmethod
  def signed(bits: int) -> 'Coding':
    """Two's complement of `bits` bits."""
    low = tuple(2**i for i in range(bits - 1))
    return Coding((*low, -(2 ** (bits - 1))))

  @staticmethod
  def bipolar(bits: int) -> 'Coding':
    """2 u - (2^bits - 1): sums of signs times powers of two."""
    weights = tuple(2 ** (i + 1) for i in range(bits))
    return Coding(weights, -(2**bits - 1))

  def values(self, fields: jax.Array) -> jax.Array:
    """The numbers, int32, of unsigned fields of `bits` bits."""
    fields = fields.astype(jnp.int32)
    total = jnp.full(fields.shape, self.offset, jnp.int32)
    for i, weight in enumerate(self.weights):
      total = total + ((fields >> i) & 1) * weight
    return total


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Planes:
  """A matrix in planes: words of 32 codes along the contraction axis.

  - Rows of activations: words [bits, M, K / 32]; columns of weights: words
    [bits, K / 32, N]. `axis` says which.
  - Codes behind K are zeros.
  """

  words: jax.Array  # uint32.
  coding: Coding = dataclasses.field(metadata={'static': True})
  size: int = dataclasses.field(metadata={'static': True})  # K.
  axis: int = dataclasses.field(metadata={'static': True})  # -1 or -2.


def pack_planes(fields: jax.Array, coding: Coding, axis: int = -1) -> Planes:
  """Planes of a matrix of codes.

  Args:
    fields: Unsigned integers below 2^bits: the bits of the codes, [M, K] for
      axis -1, [K, N] for axis -2.
    coding: What they mean.
    axis: The contraction axis.

  Raises:
    ValueError: If it is no matrix, or the axis is another one.
    TypeError: If `fields` are no integers.
  """
  if fields.ndim != 2 or axis not in (-1, -2):
    raise ValueError(
      f'`fields` must be a matrix and `axis` -1 or -2, got {fields.shape} and '
      f'{axis}.'
    )
  if not jnp.issubdtype(fields.dtype, jnp.integer):
    raise TypeError(f'`fields` must be integers, got {fields.dtype}.')
  size = fields.shape[axis]
  rows = jnp.moveaxis(fields, axis, -1).astype(jnp.uint32)
  rows = jnp.pad(rows, ((0, 0), (0, -size % WORD)))
  lanes = rows.reshape(rows.shape[0], -1, WORD)
  at = np.arange(WORD, dtype=np.uint32)[None, None]
  planes = [
    jnp.sum(((lanes >> np.uint32(i)) & np.uint32(1)) << at, axis=-1)
    for i in range(coding.bits)
  ]
  words = jnp.stack(planes).astype(jnp.uint32)
  return Planes(jnp.moveaxis(words, -1, axis), coding, size, axis)


def unpack_planes(p: Planes) -> jax.Array:
  """The numbers that a matrix of planes stands for, int32."""
  words = jnp.moveaxis(p.words, p.axis, -1)
  at = np.arange(WORD, dtype=np.uint32)[None, None, None]
  bits = (words[..., None] >> at) & np.uint32(1)
  bits = bits.reshape(*words.shape[:2], -1)[..., : p.size].astype(jnp.int32)
  weights = np.asarray(p.coding.weights, np.int32)
  values = jnp.einsum('bmk,b->mk', bits, weights) + p.coding.offset
  return jnp.moveaxis(values, -1, p.axis)


def finish(x: Planes, w: Planes, product: jax.Array) -> jax.Array:
  """x w [M, N] of the sum of plane products, by adding the offsets' terms."""
  o_x, o_w = x.coding.offset, w.coding.offset
  if o_w:
    product = product + o_w * _weighted(x)
  if o_x:
    product = product + o_x * _weighted(w)
  return product + x.size * o_x * o_w


def _weighted(p: Planes) -> jax.Array:
  """sum_i weights[i] popcount(plane i), [M, 1] or [1, N]."""
  ones = jax.lax.population_count(p.words).astype(jnp.int32)
  ones = jnp.sum(ones, axis=p.axis, keepdims=True)
  weights = np.asarray(p.coding.weights, np.int32)
  return jnp.einsum('bmn,b->mn', ones, weights)
