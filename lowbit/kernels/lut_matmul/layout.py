"""Weights as indices into tables of activation sums, and the tables.

A code of b bits is b planes of signs. With u the code as an unsigned number and
w = s (u - z), the re-mapping q' = 2 u - (2^b - 1) of LUT Tensor Core
(arXiv:2408.06003) gives w = s' (q' - z') with s' = s / 2, z' = 2 z + 1 - 2^b,
and q' = sum_i 2^i (2 b_i - 1). Four signs of one plane index a table of the
sums +-x0 +-x1 +-x2 +-x3 (T-MAC, arXiv:2407.00088). The table is odd, so that
the half with -x3 is enough: the fourth bit of an index says whether to negate.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from lowbit import formats, quantize
from lowbit.kernels import operands

GROUP = 4  # Activations of a table.
ENTRIES = 8  # Half of the 2^4 sums.
SEGMENT = 64  # Codes of a step: 16 tables of 8 entries fill 128 lanes.
static = lambda: dataclasses.field(metadata={'static': True})


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class LutWeight:
  """A matrix [K, N] as table indices; K is padded to whole segments.

  y = sum over segments of scale * (sum_i 2^i lookups of plane i) - offset *
  (sum of x).
  """

  words: jax.Array  # uint8 [bits, K / 8, N]: indices 2 k low, 2 k + 1 high.
  scale: jax.Array  # float32 [segments or 1, N]: s / 2.
  offset: jax.Array  # float32 [segments or 1, N]: s' z'.
  size: int = static()  # K without padding.

  @property
  def bits(self) -> int:
    """Planes, that is bits of a code."""
    return self.words.shape[0]

  @property
  def shape(self) -> tuple[int, int]:
    """[K, N]."""
    return self.size, self.words.shape[2]


def lut_weight(q: operands.Weight) -> LutWeight:
  """Table indices of an integer matrix [K, N].

  Args:
    q: QTensor or PackedQTensor of integers, quantized along axis -2, with one
      scale a column, or groups that are multiples of 64 codes.

  Raises:
    TypeError: If `q` is no quantized tensor.
    ValueError: If it is no such matrix.
  """
  if not isinstance(q, operands.Weight):
    raise TypeError(f'`q` must be a quantized tensor, got {type(q).__name__}.')
  q = quantize.unpack(q) if isinstance(q, quantize.PackedQTensor) else q
  fmt, reasons = q.spec.format, operands.why_not(q)
  if not isinstance(fmt, formats.Integer):
    reasons.append(f'{fmt.name} is no integer format')
  op = operands.take_apart(q) if not reasons else None
  if op and op.group < op.size and op.group % SEGMENT:
    reasons.append(f'groups of {op.group} are no multiples of {SEGMENT}')
  if reasons:
    raise ValueError(
      f'`q` must be a matrix [K, N] of integers: {"; ".join(reasons)}.'
    )
  fields = quantize.packing.unsigned(q.codes, fmt).astype(jnp.int32)
  scale = operands.decode_scale(op.scale, op.scale_format)
  if op.tensor_scale is not None:
    scale = scale * op.tensor_scale
  zero = jnp.zeros(()) if q.zero is None else op.zero.astype(jnp.float32)
  if fmt.signed and fmt.bits > 1:  # Two's complement: flip the sign's bit.
    fields, zero = fields ^ (2 ** (fmt.bits - 1)), zero + 2 ** (fmt.bits - 1)
  elif fmt.signed:  # s (2 u - 1) = 2 s (u - 1/2).
    scale, zero = 2 * scale, zero + 0.5
  offset = scale / 2 * (2 * zero + 1 - 2**fmt.bits)
  count = op.group // SEGMENT if op.group < op.size else 1
  spread = lambda a: jnp.repeat(a, count, axis=0)[: -(-op.size // SEGMENT)]
  words = _indices(fields, fmt.bits)
  return LutWeight(words, spread(scale / 2), spread(offset), op.size)


def _indices(fields, bits: int) -> jax.Array:
  """Mirrored indices of all planes: uint8 [bits, K / 8, N]."""
  fields = jnp.pad(fields, ((0, -fields.shape[0] % SEGMENT), (0, 0)))
  plane = (fields[None] >> np.arange(bits, dtype=np.int32)[:, None, None]) & 1
  four = plane.reshape(bits, -1, GROUP, fields.shape[1])
  low = four[:, :, 0] | (four[:, :, 1] << 1) | (four[:, :, 2] << 2)
  negate = four[:, :, 3]
  index = jnp.where(negate == 1, 7 - low, low) | (negate << 3)
  pairs = index.reshape(bits, -1, 2, fields.shape[1])
  return (pairs[:, :, 0] | (pairs[:, :, 1] << 4)).astype(jnp.uint8)


def unpack_indices(words: jax.Array) -> jax.Array:
  """int32 [bits, K / 4, N] of packed indices [bits, K / 8, N]."""
  words = words.astype(jnp.int32)
  both = jnp.stack([words & 15, words >> 4], axis=2)
  return both.reshape(words.shape[0], -1, words.shape[2])


def signs() -> np.ndarray:
  """The signs of the four activations in each entry, float32 [4, 8]."""
  entry = np.arange(ENTRIES)
  bits = [(entry >> j) & 1 for j in range(3)]
  return np.stack([*(2 * b - 1 for b in bits), -np.ones(8)]).astype(np.float32)


def tables(x: jax.Array) -> jax.Array:
  """Tables of x [M, K], float32 [M, K' / 4, 8], K' in whole segments."""
  x = jnp.pad(x.astype(jnp.float32), ((0, 0), (0, -x.shape[1] % SEGMENT)))
  four = x.reshape(x.shape[0], -1, GROUP)
  return jnp.einsum('mgj,je->mge', four, signs(), precision='highest')


def quantize_tables(table: jax.Array) -> tuple[jax.Array, jax.Array]:
  """int8 tables and their scales, one for the 16 tables of a segment.

  The scale takes the largest sum of four magnitudes to 127, as in T-MAC.

  Args:
    table: float32 [M, tables, 8].

  Returns:
    (int8 like `table`, float32 [M, segments]).
  """
  m = table.shape[0]
  largest = jnp.max(jnp.abs(table.reshape(m, -1, 16 * ENTRIES)), axis=2)
  scale = jnp.where(largest > 0, largest / 127, 1.0)
  wide = jnp.repeat(scale, 16, axis=1)[:, :, None]
  return jnp.rint(table / wide).astype(jnp.int8), scale


def sums(x: jax.Array) -> jax.Array:
  """Sum of each segment of x [M, K]: float32 [M, segments]."""
  x = jnp.pad(x.astype(jnp.float32), ((0, 0), (0, -x.shape[1] % SEGMENT)))
  return jnp.sum(x.reshape(x.shape[0], -1, SEGMENT), axis=2)
