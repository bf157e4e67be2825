"""A quantized matrix taken apart, as the matmul kernels want it.

Scales are kept as they are stored where a kernel can decode them (floats, and
codes of 8 bits such as e8m0 and e4m3); all else about the side data is resolved
here, by XLA: it is small beside the codes.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np

from lowbit import formats, quantize
from lowbit.kernels import storage as storage_lib
from lowbit.quantize import packing, qtensor

Weight = quantize.QTensor | quantize.PackedQTensor


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Operands:
  """w[k, n] = (value(code) - zero) * scale * tensor_scale.

  - `scale` has a row for each group of `group` codes along K, or one row.
  - `zero` has the shape of `scale`, or holds codes of `zero_bits` packed along
    N, in whole chunks.
  """

  words: jax.Array  # uint8 [bytes, N].
  scale: jax.Array  # Floats or uint8 codes [groups, N].
  zero: jax.Array | None  # uint8 or float32 [groups, N or bytes].
  tensor_scale: jax.Array | None  # float32 [1, 1].
  size: int = dataclasses.field(metadata={'static': True})  # K.
  group: int = dataclasses.field(metadata={'static': True})  # K for one row.
  storage: storage_lib.Storage = dataclasses.field(metadata={'static': True})
  scale_format: formats.Format | None = dataclasses.field(
    metadata={'static': True}
  )
  zero_bits: int = dataclasses.field(default=0, metadata={'static': True})
  offset: int = dataclasses.field(  # Of the first code in its group.
    default=0, metadata={'static': True}
  )

  @property
  def columns(self) -> int:
    """N."""
    return self.words.shape[1]

  @property
  def grouped(self) -> bool:
    """Whether scales change along K."""
    return self.scale.shape[0] > 1

  def bare(self) -> 'Static':
    """What a kernel is compiled for, without the arrays."""
    return Static(
      self.group,
      self.grouped,
      self.storage,
      self.scale_format,
      self.zero_bits,
    )

  def common(self, size: int) -> int:
    """Most codes that divide both `size` and a group."""
    return math.gcd(size, self.group) if self.grouped else size

  def rows(self, start: int, stop: int) -> 'Operands':
    """Codes start..stop of K; whole chunks, but for the end of the last."""
    s = self.storage
    part = self.words[s.count(start) : s.count(stop)]
    groups = slice(start // self.group, math.ceil(stop / self.group))
    cut = lambda a: a[groups] if a is not None and self.grouped else a
    group = self.group if self.grouped else stop - start
    return dataclasses.replace(
      self,
      words=part,
      scale=cut(self.scale),
      zero=cut(self.zero),
      size=stop - start,
      group=group,
      offset=start % self.group if self.grouped else 0,
    )


@dataclasses.dataclass(frozen=True)
class Static:
  """The part of `Operands` that is not data."""

  group: int
  grouped: bool
  storage: storage_lib.Storage
  scale_format: formats.Format | None
  zero_bits: int

  @property
  def zero_storage(self) -> storage_lib.Storage:
    """How packed zero points lie along N."""
    fmt = formats.Integer(self.zero_bits, signed=False)
    return storage_lib.Storage(fmt)


def unpacked_zero(op: Operands) -> Operands:
  """The same with zero points of one value a column."""
  if not op.zero_bits:
    return op
  zero = packing.unpack_codes(op.zero, op.zero_bits, op.columns)
  return dataclasses.replace(op, zero=zero, zero_bits=0)


def to_float(zero: jax.Array) -> jax.Array:
  """Zero points as float32; bytes through int32, which every unit has."""
  if zero.dtype == jnp.uint8:
    zero = zero.astype(jnp.int32)
  return zero.astype(jnp.float32)


def row(op: Operands, start):
  """The row of scales and zero points for the code `start`."""
  return (start + op.offset) // op.group if op.grouped else 0


def scale_at(op: Operands, start) -> jax.Array:
  """Scales [1, N] of the codes from `start` on, in one group."""
  scale = jax.lax.dynamic_slice_in_dim(op.scale, row(op, start), 1)
  return decode_scale(scale, op.scale_format)


def divisor(n: int, most: int) -> int:
  """The largest divisor of `n` that is at most `most`."""
  return max(d for d in range(1, most + 1) if n % d == 0)


def decode_scale(scale, fmt: formats.Format | None) -> jax.Array:
  """Scales as float32, from floats or from codes of `fmt`."""
  if fmt is None:
    return scale.astype(jnp.float32)
  codes = scale.astype(jnp.int32)
  if isinstance(fmt, formats.E8M0):  # 2^(c - 127); code 0 would be flushed.
    value = jax.lax.bitcast_convert_type(codes << 23, jnp.float32)
    return jnp.where(codes == 255, jnp.nan, value)
  return storage_lib.minifloats(codes, fmt)


def why_not(w: Weight) -> list[str]:
  """Reasons against taking `w` apart; it is then decoded whole."""
  reasons = []
  if w.spec.format.bits > 8:
    reasons.append(f'codes of {w.spec.format.name} have more than 8 bits')
  if isinstance(w.spec.format, formats.SideFormat):
    reasons.append(f'{w.spec.format.name} has side data for each block')
  if w.axis != (-2,):
    reasons.append(
      f'the weight is quantized along axis {w.axis}, not along its inputs, -2'
    )
  if _codes(w).ndim != 2:
    reasons.append(f'the weight has {_codes(w).ndim} axes, not 2')
  return reasons


def shape(w: Weight) -> tuple[int, ...]:
  """Shape of the matrix that `w` stands for."""
  if isinstance(w, quantize.QTensor):
    return w.shape
  dims = list(w.words.shape)
  if w.axis:
    dims[w.axis[-1]] = w.size
  return tuple(dims)


def _codes(w: Weight) -> jax.Array:
  return w.words if isinstance(w, quantize.PackedQTensor) else w.codes


def check(w: Weight) -> None:
  """Raises ValueError if the packed bytes do not fit the shape."""
  if isinstance(w, quantize.PackedQTensor) and w.axis:
    want = packing.packed_size(w.spec.format, w.size)
    got = w.words.shape[w.axis[-1]]
    if want != got:
      raise ValueError(
        f'{w.size} codes of {w.spec} take {want} bytes, but `words` '
        f'{w.words.shape} has {got} along axis {w.axis[-1]}. Pack the tensor '
        'with lowbit.pack.'
      )


def take_apart(w: Weight) -> Operands:
  """The operands of a weight [K, N] for which `why_not` has no reason."""
  fmt, packed = w.spec.format, isinstance(w, quantize.PackedQTensor)
  size, n = shape(w)
  scale, scale_format, tensor_scale = _scale(w.scale, w.spec)
  zero, zero_bits = w.zero, 0
  if zero is not None and packed and w.spec.integer_zero and fmt.bits < 8:
    zero_bits = fmt.bits
    if n % packing.CHUNK or scale.shape[-1] != n:
      zero = packing.unpack_codes(zero, fmt.bits, scale.shape[-1])
      zero_bits = 0
  lengths = quantize.Blocks((size, n), _block(w, (size, n))).lengths
  spread = lambda a: a if a is None else _columns(a, lengths[1], n)
  words = w.words if packed else w.codes
  if words.dtype != jnp.uint8:
    words = jax.lax.bitcast_convert_type(words, jnp.uint8)
  return Operands(
    words,
    spread(scale),
    zero if zero_bits else spread(zero),
    tensor_scale,
    size,
    max(lengths[0], 1) if scale.shape[0] > 1 else max(size, 1),
    storage_lib.Storage(fmt, packed),
    scale_format,
    zero_bits,
  )


def _block(w: Weight, dims) -> tuple[int, int]:
  return quantize.blocking.block_shape(w.spec.block, dims, w.axis)


def _columns(a, width: int, n: int) -> jax.Array:
  """One value a column, from one a block of `width` columns."""
  if a.shape[1] == n:
    return a
  return jnp.repeat(a, width, axis=1)[:, :n]


def _scale(scale, spec):
  """(stored scales, their format or None, scale of the tensor or None)."""
  if isinstance(scale, quantize.PackedQTensor | quantize.QTensor):
    two_level = scale.spec
    is_plain = two_level.block == 'tensor' and two_level.zero_point is False
    if is_plain and _kernel_decodes(two_level.format):
      top = qtensor.scales_of(_unpacked(scale))
      return _codes(scale), two_level.format, top.reshape(1, 1)
    return quantize.dequantize(_unpacked(scale)), None, None
  if jnp.issubdtype(scale.dtype, jnp.floating):
    return scale, None, None
  if _kernel_decodes(spec.scale_format):
    return scale, spec.scale_format, None
  return spec.scale_format.decode(scale), None, None


def _kernel_decodes(fmt) -> bool:
  is_byte = isinstance(fmt, formats.E8M0 | formats.Minifloat)
  return is_byte and fmt.bits == 8 and fmt.code_dtype == np.uint8


def _unpacked(q: Weight) -> quantize.QTensor:
  return quantize.unpack(q) if isinstance(q, quantize.PackedQTensor) else q
