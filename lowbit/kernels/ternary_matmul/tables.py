"""bitnet.cpp's table kernels TL1 and TL2 (arXiv:2410.16144), exact.

TL1 looks up one of 9 sums of two activations: 4 bits for 2 weights. TL2 looks
up one of 14 sums of three, and a sign, since the other 13 are their negatives:
4 + 1 bits for 3 weights, 1.667 a weight. Sums stay whole, so that nothing is
lost; int8 tables, as T-MAC has them, lose.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from lowbit.quantize import packing

static = lambda: dataclasses.field(metadata={'static': True})
POWERS = np.array([9, 3, 1], np.int32)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TablePacked:
  """A ternary matrix [K, N] as table indices.

  The first 3 * triples rows as TL2, the rest as TL1, padded to an even number.
  """

  index: jax.Array  # uint8, 4-bit indices of triples, packed along axis 0.
  sign: jax.Array  # uint8, their signs, packed along axis 0.
  pairs: jax.Array  # uint8, 4-bit indices of pairs, packed along axis 0.
  triples: int = static()
  size: int = static()  # K.

  @property
  def bits_per_weight(self) -> float:
    """Bits at rest over the number of weights."""
    used = self.index.size + self.sign.size + self.pairs.size
    return 8 * used / (self.size * self.index.shape[1])


def table_pack(codes: jax.Array, block: int | None = 6) -> TablePacked:
  """Packs codes in {-1, 0, 1}, int8 [K, N].

  Args:
    codes: The weights.
    block: TL2 takes as many whole blocks of so many rows as there are, a
      multiple of 3; None for TL1 alone.
  """
  size, n = codes.shape
  if block is not None and block % 3:
    raise ValueError(f'`block` must be a multiple of 3, got {block}.')
  rows = size // block * block if block else 0
  codes = codes.astype(jnp.int32)
  three = codes[:rows].reshape(-1, 3, n)
  value = jnp.einsum('gjn,j->gn', three, POWERS)  # -13..13.
  rest = jnp.pad(codes[rows:], ((0, (size - rows) % 2), (0, 0)))
  two = rest.reshape(-1, 2, n)
  pair = 3 * (two[:, 0] + 1) + two[:, 1] + 1  # 0..8.
  pack = lambda a, bits: packing.pack_codes(a.astype(jnp.uint8).T, bits).T
  return TablePacked(
    pack(jnp.abs(value), 4),
    pack(value < 0, 1),  # The triple of zeros has sign 0.
    pack(pair, 4),
    rows // 3,
    size,
  )


def states(count: int, width: int) -> np.ndarray:
  """Ternary digits of the states of `width` weights, int32 [count, width].

  Of three weights, the 14 whose number 9 a + 3 b + c is 0..13; of two, all 9.
  """
  digits = np.stack(
    np.meshgrid(*[[-1, 0, 1]] * width, indexing='ij'), -1
  ).reshape(-1, width)
  return digits[-count:].astype(np.int32)


def table_matmul(
  x: jax.Array, w: TablePacked, int8_tables: bool = False
) -> jax.Array:
  """int32 [M, N] of int8 x [M, K], by lookups in plain XLA.

  Args:
    x: The codes of activations.
    w: From `table_pack`.
    int8_tables: Round each row's tables to int8, which is lossy: float32 then.
  """
  if x.ndim != 2 or x.shape[1] != w.size:
    raise ValueError(f'`x` {x.shape} must be [M, {w.size}].')
  x, rows = x.astype(jnp.int32), 3 * w.triples
  rest = w.size - rows
  unpack = lambda a, bits, n: packing.unpack_codes(a.T, bits, n).T.astype(
    jnp.int32
  )
  index = unpack(w.index, 4, w.triples)
  sign = unpack(w.sign, 1, w.triples)
  pair = unpack(w.pairs, 4, -(-rest // 2))
  three = x[:, :rows].reshape(x.shape[0], w.triples, 3)
  two = jnp.pad(x[:, rows:], ((0, 0), (0, rest % 2)))
  two = two.reshape(x.shape[0], two.shape[1] // 2, 2)
  found = _look_up(three, states(14, 3), index, int8_tables)
  mask = -sign[None]  # (s ^ -1) + 1 = -s.
  found = jnp.where(mask == 0, found, -found)
  y = jnp.sum(found, axis=1)
  found = _look_up(two, states(9, 2), pair, int8_tables)
  return y + jnp.sum(found, axis=1)


def _look_up(x, digits, index, int8_tables: bool):
  """Entries [M, groups, N] of the tables of x [M, groups, width]."""
  table = jnp.einsum('mgj,ej->mge', x, digits)
  if int8_tables:
    largest = jnp.max(jnp.abs(table), axis=(1, 2), keepdims=True, initial=1)
    scale = largest.astype(jnp.float32) / 127
    table = jnp.rint(table.astype(jnp.float32) / scale) * scale
  shape = (x.shape[0], *index.shape)
  return jnp.take_along_axis(
    table, jnp.broadcast_to(index[None], shape), axis=2
  )
