"""Two widths in one matrix: in every window of groups, one is wide.

The number of wide groups in a window is fixed, so that tiles align; which one
it is differs by output. Li et al., Enabling Fast 2-bit LLM on GPUs, 2023
(arXiv:2311.16442), which ranks groups by the range of their weights; that one
of four, and not a number for each column of tiles, is wide is a choice made
here.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp

from lowbit import quantize
from lowbit.operators import base, leaves
from lowbit.quantize import packing


@leaves.node
class MixedGroups(base.Operator):
  """Windows of `every` groups of inputs, one of them in `wide`."""

  narrow: quantize.QTensor  # [out, in (every - 1) / every], groups along in.
  wide: quantize.QTensor  # [out, in / every].
  place: jax.Array  # uint8, packed: which group of each window is wide.
  every: int = dataclasses.field(metadata={'static': True})

  @property
  def _group(self) -> int:
    return self.wide.spec.block

  @property
  def shape(self):
    """(in, out)."""
    out, width = self.wide.shape
    return width * self.every, out

  def dense(self):
    """The decoded matrix, float32 [in, out]."""
    out, width = self.wide.shape
    windows = width // self._group
    cut = lambda q, n: quantize.dequantize(q).reshape(
      out, windows, n, self._group
    )
    narrow, wide = cut(self.narrow, self.every - 1), cut(self.wide, 1)[:, :, 0]
    place = packing.unpack_codes(self.place, _bits(self.every), windows)
    place = place[..., None]
    last = self.every - 2

    def slot(i):
      before, after = narrow[:, :, min(i, last)], narrow[:, :, max(i - 1, 0)]
      return jnp.where(place == i, wide, jnp.where(i < place, before, after))

    parts = jnp.stack([slot(i) for i in range(self.every)], axis=2)
    return parts.reshape(out, -1).T


def _bits(every: int) -> int:
  return max(math.ceil(math.log2(every)), 1)


def group_range(groups: jax.Array) -> jax.Array:
  """max - min of each group: [..., g] -> [...]."""
  return jnp.max(groups, axis=-1) - jnp.min(groups, axis=-1)


def mixed_groups(
  w: jax.Array,
  narrow: quantize.Spec | str,
  wide: quantize.Spec | str,
  every: int = 4,
  score=group_range,
) -> MixedGroups:
  """Gives the wide spec to the group of largest score in every window.

  Args:
    w: Float [out, in].
    narrow: Spec of most groups, such as 'int2z@g16'.
    wide: Spec of one of `every` groups, of the same group size.
    every: Groups a window.
    score: [out, windows, every, g] -> [out, windows, every].

  Returns:
    The operator of W^T, [in, out].

  Raises:
    ValueError: If the group sizes differ, or the windows do not divide `in`.
  """
  narrow, wide = quantize.Spec.parse(narrow), quantize.Spec.parse(wide)
  quantize.check_float(w, 'w')
  group = narrow.block
  if not isinstance(group, int) or group != wide.block or every < 2:
    raise ValueError(
      '`narrow` and `wide` need groups of one size, and `every` at least 2; '
      f'got {narrow}, {wide}, {every=}.'
    )
  if w.shape[1] % (group * every):
    raise ValueError(
      f'Windows of {every} groups of {group} do not divide in={w.shape[1]}. '
      'Choose another group size, or pad `w`.'
    )
  parts = w.astype(jnp.float32).reshape(len(w), -1, every, group)
  place = jnp.argmax(score(parts), axis=-1)
  # The wide group goes last, the others keep their order.
  is_wide = jax.nn.one_hot(place, every, dtype=jnp.int32)
  order = jnp.argsort(is_wide, axis=-1, stable=True)
  moved = jnp.take_along_axis(parts, order[..., None], axis=2)
  code = lambda a, spec: quantize.quantize(a.reshape(len(w), -1), spec)
  packed = packing.pack_codes(place.astype(jnp.uint8), _bits(every))
  return MixedGroups(
    code(moved[:, :, :-1], narrow), code(moved[:, :, -1:], wide), packed, every
  )
