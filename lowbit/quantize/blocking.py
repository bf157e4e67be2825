"""Blocks: which elements of a tensor share one scale.

Every granularity of the field is a block shape, one length per axis: a tensor
is one block, a channel is a block of full length along the contraction axis and
length 1 elsewhere, a group is a part of that, a tile has two lengths.
"""

import dataclasses
import math
import operator

import jax
import jax.numpy as jnp
import numpy as np

Block = int | tuple[int, int] | str
NAMED = ('tensor', 'channel', 'token')


def normalize_axis(axis: int | tuple[int, ...], ndim: int) -> tuple[int, ...]:
  """Axes counted from the end, sorted: what does not change under vmap."""
  try:
    axes = tuple(map(operator.index, np.atleast_1d(axis)))
  except TypeError as error:
    raise TypeError(
      f'`axis` must be an int or a tuple of ints, got {axis!r}.'
    ) from error
  for a in axes:
    if not -ndim <= a < ndim:
      raise ValueError(
        f'`axis` {axis} is out of range for an array of {ndim} axes.'
      )
  found = {a if a < 0 else a - ndim for a in axes}
  if not axes or len(found) < len(axes):
    raise ValueError(
      f'`axis` must name at least one axis, and none twice; got {axis} for an '
      f'array of {ndim}. Groups run along -1 by default.'
    )
  return tuple(sorted(found))


def block_shape(
  block: Block, shape: tuple[int, ...], axis: tuple[int, ...]
) -> tuple[int, ...]:
  """The lengths of one block along each axis of `shape`.

  Args:
    block: 'tensor'; 'channel' or 'token' (one scale for each index of the other
      axes); an int, the group size along the last contraction axis; or a tile
      (size along the last contraction axis, size along the last other axis).
    shape: Shape of the tensor.
    axis: Contraction axes, negative, from `normalize_axis`.

  Returns:
    A tuple of `len(shape)` block lengths. A group longer than its axis is the
    axis.

  Raises:
    ValueError: If a group or tile is asked of an array without such an axis.
  """
  asked = asked_shape(block, shape, axis)
  return tuple(min(b, n) if n else b for b, n in zip(asked, shape))


def asked_shape(
  block: Block, shape: tuple[int, ...], axis: tuple[int, ...]
) -> tuple[int, ...]:
  """`block_shape`, but a group may be longer than its axis."""
  ndim = len(shape)
  if block == 'tensor':
    return shape
  if block in ('channel', 'token'):
    return tuple(n if i - ndim in axis else 1 for i, n in enumerate(shape))
  if ndim == 0:
    raise ValueError(
      f'A scalar has no axis for block={block}. Use @tensor for it.'
    )
  lengths = [1] * ndim
  group, *other = (block,) if isinstance(block, int) else block
  lengths[axis[-1]] = group
  if other:
    free = [i - ndim for i in range(ndim) if i - ndim not in axis]
    if not free:
      raise ValueError(
        f'A tile {block} needs an axis besides `axis`={axis}; got shape '
        f'{shape}. Use a group, or @tensor.'
      )
    lengths[free[-1]] = other[0]
  return tuple(lengths)


@dataclasses.dataclass(frozen=True)
class Blocks:
  """How an array of `shape` is cut in blocks of `lengths`, tails padded."""

  shape: tuple[int, ...]
  lengths: tuple[int, ...]

  @property
  def grid(self) -> tuple[int, ...]:
    """Number of blocks along each axis: the shape of the scales."""
    return tuple(
      math.ceil(n / max(b, 1)) for n, b in zip(self.shape, self.lengths)
    )

  @property
  def ragged(self) -> bool:
    """Whether the last block along some axis is not full."""
    return any(n % max(b, 1) for n, b in zip(self.shape, self.lengths))

  def _split_shape(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The blocked shape, and the axes inside a block."""
    shape, inner = [], []
    for count, n, b in zip(self.grid, self.shape, self.lengths):
      if b <= 1:
        shape.append(n)
      elif b == n:
        inner.append(len(shape))
        shape.append(n)
      else:
        inner.append(len(shape) + 1)
        shape += [count, b]
    return tuple(shape), tuple(inner)

  @property
  def axes(self) -> tuple[int, ...]:
    """The axes of a `split` array that lie inside one block."""
    return self._split_shape()[1]

  def split(self, x: jax.Array) -> jax.Array:
    """`x` with each cut axis as two: [blocks, length]; tails are zeros."""
    if self.ragged:
      pads = [
        (0, count * max(b, 1) - n)
        for count, n, b in zip(self.grid, self.shape, self.lengths)
      ]
      x = jnp.pad(x, pads)
    return x.reshape(self._split_shape()[0])

  def merge(self, x: jax.Array) -> jax.Array:
    """The inverse of `split`; padding is cut off."""
    padded = tuple(c * max(b, 1) for c, b in zip(self.grid, self.lengths))
    x = x.reshape(padded)
    return x[tuple(map(slice, self.shape))] if self.ragged else x

  def spread(self, scale: jax.Array) -> jax.Array:
    """Scales of shape `grid`, shaped to broadcast against a `split` array."""
    shape, inner = self._split_shape()
    return scale.reshape([1 if i in inner else n for i, n in enumerate(shape)])
