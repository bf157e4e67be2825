"""Rows in tiles that each belong to one expert, weights in units of K."""

import dataclasses
import math

import jax
import jax.numpy as jnp

from lowbit.kernels import operands
from lowbit.kernels import storage as storage_lib
from lowbit.kernels.grouped_matmul import reference

static = lambda: dataclasses.field(metadata={'static': True})


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Tiled:
  """Where rows go: padded, so that a tile of rows has one expert."""

  expert: jax.Array  # int32 [tiles].
  place: jax.Array  # int32 [T], the place of each row; behind all, if none.
  block: int = static()

  @property
  def rows(self) -> int:
    """Padded rows."""
    return self.expert.shape[0] * self.block

  def spread(self, x: jax.Array) -> jax.Array:
    """x [T, K] in place: [rows, K], zeros between."""
    return (
      jnp.zeros((self.rows, x.shape[1]), x.dtype)
      .at[self.place]
      .set(x, mode='drop')
    )

  def gather(self, y: jax.Array) -> jax.Array:
    """The inverse: [rows, N] -> [T, N], zeros for rows without an expert."""
    return y.at[self.place].get(mode='fill', fill_value=0)


def tile(rows: int, group_sizes: jax.Array, block: int) -> Tiled:
  """Tiles of `block` rows; as many as any grouping may need."""
  experts = group_sizes.shape[0]
  count = -(-rows // block) + experts
  tiles = -(-group_sizes.astype(jnp.int32) // block)
  ends = jnp.cumsum(tiles)
  expert = jnp.searchsorted(ends, jnp.arange(count), side='right')
  mine = reference.expert_of(rows, group_sizes)
  e = jnp.minimum(mine, experts - 1)
  first = jnp.cumsum(group_sizes.astype(jnp.int32)) - group_sizes
  place = (ends - tiles)[e] * block + jnp.arange(rows) - first[e]
  place = jnp.where(mine < experts, place, count * block)
  last = jnp.minimum(expert, experts - 1)
  return Tiled(last.astype(jnp.int32), place.astype(jnp.int32), block)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Experts:
  """Weights of all experts in units of K that share a scale."""

  words: jax.Array  # uint8 [E chunks, bytes of a chunk, N].
  scale: jax.Array  # float32 [E units, 1, N].
  zero: jax.Array | None  # float32 [E units, 1, N].
  chunks: int = static()  # Of one expert.
  units: int = static()
  unit: int = static()  # Codes.
  storage: storage_lib.Storage = static()


def one_expert(w) -> tuple[operands.Operands | None, list[str]]:
  """(shapes of one expert's operands, reasons against taking `w` apart)."""
  one = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape[1:], a.dtype), w)
  why = operands.why_not(one)
  apart = lambda w: operands.unpacked_zero(operands.take_apart(w))
  return (None if why else jax.eval_shape(apart, one)), why


def unit_of(op: operands.Operands) -> int:
  """Codes of a unit, in one lane of bytes."""
  s = op.storage
  unit = s.chunk if op.group >= op.size else math.gcd(s.chunk, op.group)
  return math.gcd(unit, 128 if s.ternary else 32 * min(s.widths))


def reasons(w) -> list[str]:
  """Why weights [E, K, N] have no units."""
  op, why = one_expert(w)
  if op is None:
    return why
  if op.size % op.storage.chunk or not op.size:
    why.append(f'K={op.size} is not in chunks of {op.storage.chunk} codes')
  if unit_of(op) < 16:
    why.append(f'groups of {op.group} are less than 16 codes')
  return why


def units(w) -> Experts:
  """The units of weights without `reasons`."""
  op = jax.vmap(lambda w: operands.unpacked_zero(operands.take_apart(w)))(w)
  s, unit = op.storage, unit_of(op)
  experts, count = op.words.shape[0], op.size // unit
  scale = operands.decode_scale(op.scale, op.scale_format)
  if op.tensor_scale is not None:
    scale = scale * op.tensor_scale

  def spread(a):
    if a is None:
      return None
    a = jnp.repeat(a.astype(jnp.float32), count // a.shape[1], axis=1)
    return a.reshape(experts * count, 1, -1)

  chunks = op.size // s.chunk
  return Experts(
    op.words.reshape(experts * chunks, s.rows, -1),
    spread(scale),
    spread(op.zero),
    chunks,
    count,
    unit,
    s,
  )


def activations(x: jax.Array, unit: int) -> jax.Array:
  """x [rows, K] with a leading axis of units: [units, rows, unit]."""
  return jnp.moveaxis(x.reshape(x.shape[0], -1, unit), 1, 0)
