"""Packed storage, and the count of bits at rest. The one place that packs.

The contraction axis is cut in chunks of 256 codes (640 ternary ones), each
packed by itself: a range of chunks is a range of bytes, so that long axes are
streamed, and sharded, without a look at the rest. A last, shorter chunk is
packed alike.

In a chunk, a b-bit code is cut into planes of 4, 2 and 1 bits (3 = 2 + 1, 5 =
4 + 1, ...), low bits first, and the planes lie behind each other. Each is
planar: with P bytes in a plane of w bits, code j P + k of the chunk lies in
byte k, at bit j w. Five ternary codes share a byte as base-3 digits, planar
too. Tails are zeros.
"""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

from lowbit import formats
from lowbit.quantize import qtensor
from lowbit.quantize import spec as spec_lib

CHUNK = 256  # Codes; the planes of a chunk are multiples of 32 bytes.
TERNARY_CHUNK = 640  # The same in 128 bytes of five digits.


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class PackedQTensor:
  """A QTensor whose codes lie packed in bytes along the contraction axis."""

  words: jax.Array  # uint8; the packed axis counts bytes.
  scale: 'jax.Array | PackedQTensor'
  zero: jax.Array | None  # uint8 bytes of packed codes, or float32.
  size: int = dataclasses.field(metadata={'static': True})  # Packed axis.
  spec: spec_lib.Spec = dataclasses.field(metadata={'static': True})
  axis: tuple[int, ...] = dataclasses.field(metadata={'static': True})
  side: 'jax.Array | PackedQTensor | None' = None  # As `QTensor.side`.


def planes(bits: int) -> tuple[int, ...]:
  """Widths of the planes of a b-bit code, low bits first."""
  if not 1 <= bits <= 8:
    raise ValueError(f'Codes of 1..8 bits are packed, got {bits}.')
  return tuple(w for w in (8, 4, 2, 1) if bits & w)


def packed_size(fmt: formats.Format, size: int) -> int:
  """Bytes that `size` codes take along the packed axis."""
  if fmt.bits > 8:
    return size * math.ceil(fmt.bits / 8)
  if fmt.storage_bits == 1.6:
    return math.ceil(size / 5)
  return sum(math.ceil(size * w / 8) for w in planes(fmt.bits))


@functools.partial(jax.jit, static_argnums=1)
def pack_codes(codes: jax.Array, bits: int) -> jax.Array:
  """Packs the last axis: uint8 codes [..., n] below 2^bits -> uint8 bytes."""
  return _by_chunk(
    lambda chunk, _: _pack_planes(chunk, bits),
    codes,
    (CHUNK, CHUNK),
    codes.shape[-1],
  )


@functools.partial(jax.jit, static_argnums=(1, 2))
def unpack_codes(words: jax.Array, bits: int, size: int) -> jax.Array:
  """The inverse of `pack_codes`, for `size` codes: uint8 [..., size]."""
  return _by_chunk(
    lambda chunk, n: _unpack_planes(chunk, bits, n),
    words,
    (CHUNK, CHUNK * bits // 8),
    size,
  )


def pack_ternary(digits: jax.Array) -> jax.Array:
  """Packs digits 0..2 along the last axis, five a byte."""
  return _by_chunk(
    lambda chunk, _: _pack_digits(chunk),
    digits,
    (TERNARY_CHUNK, TERNARY_CHUNK),
    digits.shape[-1],
  )


def unpack_ternary(words: jax.Array, size: int) -> jax.Array:
  """The inverse of `pack_ternary`: digits 0..2, uint8 [..., size]."""
  return _by_chunk(
    _unpack_digits, words, (TERNARY_CHUNK, TERNARY_CHUNK // 5), size
  )


def _by_chunk(function, array, chunk: tuple[int, int], size: int):
  """Maps each chunk of the last axis, and the rest, and joins the results.

  Args:
    function: (array, codes) -> array, along the last axis.
    array: Codes or bytes of `size` codes along the last axis.
    chunk: Codes of a chunk, and elements of `array` that hold them.
    size: Number of codes.
  """
  codes, step = chunk
  count, rest = divmod(size, codes)
  lead, whole = array.shape[:-1], count * step
  parts = []
  if count:
    head = array[..., :whole].reshape(*lead, count, step)
    parts.append(function(head, codes).reshape(*lead, -1))
  if rest or not count:
    parts.append(function(array[..., whole:], rest))
  return parts[0] if len(parts) == 1 else jnp.concatenate(parts, axis=-1)


def _pack_planes(codes, bits: int):
  parts, shift = [], 0
  for width in planes(bits):
    plane = (codes >> np.uint8(shift)) & np.uint8(2**width - 1)
    per = 8 // width
    lanes = _lanes(plane, per)
    shifts = (np.arange(per, dtype=np.int32) * width)[:, None]
    shifts = shifts.reshape((1,) * (lanes.ndim - 2) + shifts.shape)
    word = jnp.sum(lanes.astype(jnp.int32) << shifts, axis=-2)
    parts.append(word.astype(jnp.uint8))
    shift += width
  return jnp.concatenate(parts, axis=-1)


def _unpack_planes(words, bits: int, size: int):
  codes = jnp.zeros((*words.shape[:-1], size), jnp.uint8)
  start, shift = 0, 0
  for width in planes(bits):
    count = math.ceil(size * width / 8)
    part = words[..., start : start + count]
    lanes = [
      (part >> np.uint8(j * width)) & np.uint8(2**width - 1)
      for j in range(8 // width)
    ]
    plane = jnp.concatenate(lanes, axis=-1)[..., :size]
    codes = codes | (plane << np.uint8(shift))
    start, shift = start + count, shift + width
  return codes


def _pack_digits(digits):
  lanes = _lanes(digits, 5).astype(jnp.int32)
  powers = np.asarray([1, 3, 9, 27, 81], np.int32)[:, None]
  powers = powers.reshape((1,) * (lanes.ndim - 2) + powers.shape)
  return jnp.sum(lanes * powers, axis=-2).astype(jnp.uint8)


def _unpack_digits(words, size: int):
  value = words.astype(jnp.int32)
  lanes = [(value // np.int32(3**j)) % np.int32(3) for j in range(5)]
  return jnp.concatenate(lanes, axis=-1)[..., :size].astype(jnp.uint8)


def _lanes(codes, per: int):
  """[..., n] -> [..., per, ceil(n / per)], zero tail."""
  count = math.ceil(codes.shape[-1] / per)
  tail = per * count - codes.shape[-1]
  pads = [(0, 0)] * (codes.ndim - 1) + [(0, tail)]
  return jnp.pad(codes, pads).reshape(*codes.shape[:-1], per, count)


def pack(q: qtensor.QTensor) -> PackedQTensor:
  """Packs the codes of `q`; two-level scales are packed as well.

  Returns:
    A `PackedQTensor`; `unpack` gives `q` back, bit for bit.

  Raises:
    TypeError: If `q` is no `QTensor`.
    ValueError: For codes wider than 8 bits, which are left as they are, and
      for scalars.
  """
  qtensor.check_qtensor(q, 'q')
  if q.spec.format.bits > 8 or q.ndim == 0:
    raise ValueError(
      f'Only arrays with codes of at most 8 bits are packed, got {q.spec} of '
      f'shape {q.shape}. Leave it as it is: wider codes are whole bytes '
      'already, and a scalar has no axis to pack along.'
    )
  return _pack(q)


def _has_narrow_codes(a) -> bool:
  """Whether a scale is itself quantized, to codes that are packed."""
  return isinstance(a, qtensor.QTensor) and a.spec.format.bits <= 8


@jax.jit
def _pack(q: qtensor.QTensor) -> PackedQTensor:
  fmt, axis = q.spec.format, q.axis[-1]
  codes = jnp.moveaxis(q.codes, axis, -1)
  if fmt.storage_bits == 1.6:
    words = pack_ternary((codes + np.int8(1)).astype(jnp.uint8))
  else:
    words = pack_codes(unsigned(codes, fmt), fmt.bits)
  inner = lambda a: pack(a) if _has_narrow_codes(a) else a
  zero, side = q.zero, inner(q.side)
  if q.spec.integer_zero:
    zero = pack_codes(zero, fmt.bits)
  if isinstance(fmt, formats.Choice):
    side = pack_codes(side, fmt.side_bits)
  return PackedQTensor(
    jnp.moveaxis(words, -1, axis),
    inner(q.scale),
    zero,
    q.codes.shape[axis],
    q.spec,
    q.axis,
    side,
  )


@jax.jit
def unpack(p: PackedQTensor) -> qtensor.QTensor:
  """The `QTensor` that was packed; TypeError for anything else."""
  if not isinstance(p, PackedQTensor):
    raise TypeError(
      f'`p` must be a PackedQTensor, got {type(p).__name__}. Make one with '
      'pack(q).'
    )
  fmt = p.spec.format
  words = jnp.moveaxis(p.words, p.axis[-1], -1)
  if fmt.storage_bits == 1.6:
    codes = unpack_ternary(words, p.size).astype(jnp.int8) - np.int8(1)
  else:
    codes = signed(unpack_codes(words, fmt.bits, p.size), fmt)
  inner = lambda a: unpack(a) if isinstance(a, PackedQTensor) else a
  scale, zero, side = inner(p.scale), p.zero, inner(p.side)
  if p.spec.integer_zero:
    zero = unpack_codes(zero, fmt.bits, scale.shape[-1])
  if isinstance(fmt, formats.Choice):
    side = unpack_codes(side, fmt.side_bits, scale.shape[-1])
  codes = jnp.moveaxis(codes, -1, p.axis[-1])
  return qtensor.QTensor(codes, scale, zero, p.spec, p.axis, side)


def unsigned(codes, fmt: formats.Format):
  """Codes as the bits that are packed: uint8 below 2^bits."""
  if fmt.code_dtype != np.int8:
    return codes
  if fmt.bits == 1:  # -1, +1 -> 0, 1.
    return (codes > 0).astype(jnp.uint8)
  # Through int32, since a cast of negative numbers is not defined everywhere.
  wrapped = codes.astype(jnp.int32) & np.int32(2**fmt.bits - 1)
  return wrapped.astype(jnp.uint8)


def signed(fields, fmt: formats.Format):
  """The inverse of `unsigned`: codes of `fmt.code_dtype`."""
  codes = fields
  if fmt.code_dtype != np.int8:
    return codes
  value = codes.astype(jnp.int32)
  if fmt.bits == 1:
    return (2 * value - 1).astype(jnp.int8)
  sign = np.int32(2 ** (fmt.bits - 1))
  return ((value ^ sign) - sign).astype(jnp.int8)


def bits(tree) -> int:
  """Bits at rest of a tree: packed codes, scales, zero points, float leaves.

  A QTensor counts as it would be packed. Every leaf counts in full, so that a
  tree with float layers pays for them.
  """
  whole = lambda x: isinstance(x, (qtensor.QTensor, PackedQTensor))
  leaves = jax.tree.leaves(tree, is_leaf=whole)
  return sum(_leaf_bits(leaf) for leaf in leaves)


def _leaf_bits(leaf) -> int:
  if isinstance(leaf, qtensor.QTensor):
    return 8 * _code_bytes(leaf) + bits(leaf.scale) + _extra_bits(leaf)
  if isinstance(leaf, PackedQTensor):
    return bits((leaf.words, leaf.scale, leaf.zero, leaf.side))
  return int(np.size(leaf)) * np.dtype(leaf.dtype).itemsize * 8


def _extra_bits(q: qtensor.QTensor) -> int:
  """Bits of the zero points and side data, as they would be packed."""
  fmt = q.spec.format
  zero, side = bits(q.zero), bits(q.side)
  if q.spec.integer_zero and fmt.bits <= 8:
    zero = _packed_bits(q.zero, fmt.bits)
  if isinstance(fmt, formats.Choice):
    side = _packed_bits(q.side, fmt.side_bits)
  return zero + side


def _packed_bits(codes, width: int) -> int:
  """Bits of small codes, packed along their last axis."""
  last = codes.shape[-1] if codes.ndim else 1
  row = sum(math.ceil(last * w / 8) for w in planes(width))
  return 8 * row * (codes.size // max(last, 1))


def _code_bytes(q: qtensor.QTensor) -> int:
  size = math.prod(q.shape)
  if not q.axis or not size:
    return packed_size(q.spec.format, size)
  length = q.shape[q.axis[-1]]
  return packed_size(q.spec.format, length) * (size // length)
