"""A part, cut in the units that the GPU's kernel multiplies.

A unit is a range of codes in one lane of the packed bytes of a chunk that share
all scales, zero points and ratios. x has a leading axis of units, so that the
kernel need not slice it along its rows.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp

from lowbit.kernels import storage as storage_lib
from lowbit.kernels.int_matmul import parts as parts_lib

LEAST = 32  # Codes of a unit: the depth of an int8 product.
static = lambda: dataclasses.field(metadata={'static': True})


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Piece:
  """A part in units; sides have one entry a unit, or one in all."""

  x: jax.Array  # int8 [units, M, unit].
  words: jax.Array  # uint8 [chunks, bytes of a chunk, N].
  x_scale: jax.Array  # float32 [units or 1, M, 1].
  w_scale: jax.Array  # float32 [units or 1, 1, N].
  zero: jax.Array | None  # int32 [units or 1, 1, N].
  ratio: jax.Array | None  # float32 [units or 1, 1, N].
  grouped: bool = static()
  chunk: int = static()  # Codes.
  storage: storage_lib.Storage = static()

  @property
  def high(self) -> bool:
    """Whether weights are multiplied as 16 q; see `high_nibbles`."""
    return is_high(self.storage) and self.zero is None and self.ratio is None

  @property
  def per_chunk(self) -> int:
    """Units of a chunk."""
    return self.chunk // self.x.shape[2]


def is_high(s: storage_lib.Storage) -> bool:
  """Whether codes are packed signed nibbles."""
  return s.widths == (4,) and s.format.bits == 4 and s.format.signed


def high_nibbles(words: jax.Array, lane: int) -> jax.Array:
  """int8 16 q of one lane of bytes: the nibble stays in the high half.

  There its sign is in place, where the low half would need two steps more; the
  16 leaves with the scale, and nothing is rounded. As in QQQ, arXiv:2406.09904.
  """
  words = words << 4 if lane == 0 else words & 0xF0
  return words.astype(jnp.int8)  # Cuts off the bits above.


def chunk_of(part: parts_lib.Part) -> int:
  """Codes of a chunk; whole bytes may be cut anywhere."""
  chunk = part.op.storage.chunk
  return chunk if part.op.storage.widths != (8,) else math.gcd(part.size, chunk)


def unit_of(part: parts_lib.Part) -> int:
  """Codes of a unit."""
  s, unit = part.op.storage, chunk_of(part)
  for group in (part.x_group, part.op.group):
    if group < part.size:
      unit = math.gcd(unit, group)
  return math.gcd(unit, 128 if s.ternary else 32 * min(s.widths))


def reasons(part: parts_lib.Part) -> list[str]:
  """Why a part, in whole chunks, has no units."""
  found, unit = [], unit_of(part)
  if part.size % chunk_of(part) or not part.size:
    found.append(
      f'K={part.size} is not in whole chunks of {chunk_of(part)} codes'
    )
  if unit < LEAST:
    found.append(
      f'groups of {part.group} of K={part.size} codes leave units of {unit}, '
      f'fewer than the {LEAST} of an int8 product'
    )
  return found


def build(part: parts_lib.Part, rows: int) -> Piece:
  """The piece of a part without `reasons`, x padded to `rows` rows."""
  op, unit, chunk = part.op, unit_of(part), chunk_of(part)
  units = part.size // unit
  spread = lambda a, group: _spread(a, group // unit)
  pad = ((0, rows - part.x.shape[0]), (0, 0))
  x = jnp.pad(part.x, pad).reshape(rows, units, unit)
  x_scale = jnp.pad(part.x_scale, pad).T
  zero, ratio = parts_lib.sides(part)
  w_group = op.group if part.channel is None else part.size
  w_scale = part.w_scale
  if is_high(op.storage) and zero is None and ratio is None:
    w_scale = w_scale / 16
  return Piece(
    jnp.moveaxis(x, 1, 0),
    op.words.reshape(part.size // chunk, -1, op.columns),
    spread(x_scale, part.x_group)[:, :, None],
    spread(w_scale, w_group)[:, None],
    None if zero is None else spread(zero, op.group)[:, None],
    None if ratio is None else spread(ratio, op.group)[:, None],
    part.grouped,
    chunk,
    op.storage,
  )


def _spread(a, count: int):
  """One row a unit, from one a group of `count` units; a single row stays."""
  return a if a.shape[0] == 1 or count == 1 else jnp.repeat(a, count, axis=0)
