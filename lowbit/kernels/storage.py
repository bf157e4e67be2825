"""How codes lie in bytes, and what they mean, in terms that kernels compute.

A field is the bits of one code as a non-negative int32. `unpack` makes fields
of bytes, `values` makes float32 of fields; both are made of shifts, selects and
bit casts, which every compiler here takes, and work on blocks inside a kernel
as on whole arrays.
"""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

from lowbit import formats
from lowbit.quantize import packing

LANES = 128  # Entries of a table that a TPU looks up at once.


@dataclasses.dataclass(frozen=True)
class Storage:
  """Codes of `format` along the contraction axis, packed or one a byte.

  Attributes:
    format: Of the codes, at most 8 bits.
    packed: Whether they lie as `quantize.pack` puts them.
  """

  format: formats.Format
  packed: bool = True

  @property
  def ternary(self) -> bool:
    """Whether five codes share a byte."""
    return self.packed and self.format.storage_bits == 1.6

  @property
  def chunk(self) -> int:
    """Codes that are packed together."""
    return packing.TERNARY_CHUNK if self.ternary else packing.CHUNK

  @property
  def widths(self) -> tuple[int, ...]:
    """Bits of each plane of a chunk, in order; none for ternary codes."""
    if self.ternary:
      return ()
    return packing.planes(self.format.bits) if self.packed else (8,)

  @property
  def rows(self) -> int:
    """Bytes of a chunk."""
    return self.chunk // 5 if self.ternary else 32 * sum(self.widths)

  def count(self, size: int) -> int:
    """Bytes of `size` codes."""
    if self.packed:
      return packing.packed_size(self.format, size)
    return size

  @property
  def table(self) -> np.ndarray | None:
    """float32 [2^bits], the value of each field; None where bits say it."""
    fmt = self.format
    if isinstance(fmt, formats.Integer | formats.Minifloat):
      return None
    codes = fmt.codes()
    table = np.zeros(2**fmt.bits, np.float32)
    wrapped = codes.astype(np.int32) & (2**fmt.bits - 1)
    table[wrapped] = fmt.decode(codes)
    return table


def unpack(
  words: jax.Array, storage: Storage, size: int = 0, axis: int = 0
) -> jax.Array:
  """Fields of one chunk: uint8 [bytes, n] -> int32 [size, n].

  Args:
    words: The bytes of a chunk.
    storage: How codes lie in them.
    size: Codes of a last, shorter chunk; 0 for a whole one.
    axis: Along which codes lie.
  """
  size, words = size or storage.chunk, words.astype(jnp.int32)
  cut = functools.partial(jax.lax.slice_in_dim, axis=axis)
  if storage.ternary:
    digits = []
    for _ in range(5):
      quotient = divide_by_3(words)
      digits.append(words - 3 * quotient)
      words = quotient
    return cut(jnp.concatenate(digits, axis), 0, size)
  fields, start, shift = None, 0, 0
  for width in storage.widths:
    count = math.ceil(size * width / 8)
    part = cut(words, start, start + count)
    lanes = [_bits(part, j * width, width) for j in range(8 // width)]
    plane = cut(jnp.concatenate(lanes, axis), 0, size) << shift
    fields = plane if fields is None else fields | plane
    start, shift = start + count, shift + width
  return fields


def pieces(load, storage: Storage, unit: int, step: int = 0):
  """Yields the fields of a chunk, `unit` consecutive codes at a time.

  Args:
    load: Maps an offset to `unit` rows of bytes from there on.
    storage: How codes lie.
    unit: Codes of a piece, which divides every plane.
    step: Codes from one piece to the next, which divides every plane; 0 for
      `unit`.
  """
  load = functools.cache(lambda at, load=load: load(at).astype(jnp.int32))
  if storage.ternary:
    for digit in range(5):
      for at in range(0, storage.rows, step or unit):
        word = load(at)
        for _ in range(digit):
          word = divide_by_3(word)
        yield word - 3 * divide_by_3(word)
    return
  for first in range(0, storage.chunk, step or unit):
    fields, start, shift = None, 0, 0
    for width in storage.widths:
      count = storage.chunk * width // 8
      lane, at = divmod(first, count)
      bits = _bits(load(start + at), lane * width, width)
      bits = bits << shift if shift else bits
      fields = bits if fields is None else fields | bits
      start, shift = start + count, shift + width
    yield fields


def fields_at(load, storage: Storage, codes, size: int):
  """Fields of any codes of a chunk, byte by byte: int32 [count, n].

  Args:
    load: Maps offsets int32 [count] to those rows of bytes, [count, n].
    storage: How codes lie.
    codes: int32 [count], positions in the chunk.
    size: Codes of the chunk, whole or not.
  """
  take = lambda at: load(at).astype(jnp.int32)
  if storage.ternary:
    count = storage.count(size)
    digit = jax.lax.div(codes, count)
    word = take(codes - count * digit)
    for power in range(1, 5):
      less = divide_by_3(word)
      word = jnp.where(digit[:, None] >= power, less, word)
    return word - 3 * divide_by_3(word)
  fields, start, shift = None, 0, 0
  for width in storage.widths:
    count = math.ceil(size * width / 8)
    lane = jax.lax.div(codes, count)
    bits = take(start + codes - count * lane) >> (lane * width)[:, None]
    bits = (bits & (2**width - 1)) << shift
    fields = bits if fields is None else fields | bits
    start, shift = start + count, shift + width
  return fields


def divide_by_3(x: jax.Array) -> jax.Array:
  """x // 3 for int32 x in 0..255, without a division."""
  return (x * 171) >> 9


def _bits(x, start: int, width: int):
  """`width` bits of bytes `x`, from bit `start` on.

  No shift by 0: XLA keeps it, and inside a loop may hand its compiler for CPUs
  the 0 as a variable, with a test of it for each element.
  """
  x = x >> start if start else x
  return x if start + width == 8 else x & (2**width - 1)


def integers(fields: jax.Array, storage: Storage) -> jax.Array:
  """The numbers that fields of an integer format mean, int32."""
  fmt = storage.format
  if storage.ternary:
    return fields - 1
  if not fmt.signed:
    return fields
  if storage.packed and fmt.bits == 1:
    return 2 * fields - 1
  sign = 2 ** ((fmt.bits if storage.packed else 8) - 1)
  return (fields ^ sign) - sign


def values(fields: jax.Array, storage: Storage, look_up=None) -> jax.Array:
  """The values that fields mean, float32, exact.

  Args:
    fields: int32 of any shape.
    storage: How the codes lie.
    look_up: Maps (fields, table) to values, for formats that are tables; None
      for a tree of selects.
  """
  fmt = storage.format
  if isinstance(fmt, formats.Integer):
    return integers(fields, storage).astype(jnp.float32)
  if isinstance(fmt, formats.Minifloat):
    return minifloats(fields, fmt)
  if not storage.packed:
    fields = fields & (2**fmt.bits - 1)
  return (look_up or select)(fields, storage.table)


def minifloats(fields: jax.Array, fmt: formats.Minifloat) -> jax.Array:
  """Minifloats by their bits: fields int32 -> float32.

  The magnitude is shifted to where float32 has its exponent and fraction, and
  the exponent's bias is added (after FP6-LLM, arXiv:2401.14112, in half
  precision). That reads a subnormal m 2^(1 - b) as v = (1 + m) 2^-b: it should
  be 2 v - 2 2^-b, which is the smaller of the two, and for normal numbers the
  larger one. Float units may flush true subnormals.
  """
  top = fmt.bits - 1
  magnitude = fields & (2**top - 1)
  to_float = lambda a: jax.lax.bitcast_convert_type(a, jnp.float32)
  to_bits = lambda a: jax.lax.bitcast_convert_type(a, jnp.int32)
  normal = (magnitude << (23 - fmt.mantissa)) + ((127 - fmt.bias) << 23)
  small = to_float(normal) * 2.0 - 2.0 ** (1 - fmt.bias)
  # As integers: a minimum of floats would look for NaN.
  value = to_float(jnp.minimum(normal, to_bits(small)))
  value = specials(value, magnitude, fmt)
  sign = (fields << (31 - top)) & np.int32(-(2**31))
  value = to_float(to_bits(value) | sign)
  if fmt.specials == 'fnuz':
    value = jnp.where(fields == 2**top, jnp.nan, value)
  return value


def specials(value, magnitude, fmt: formats.Minifloat):
  """`value` with the infinities and NaNs of the format put in."""
  if fmt.specials == 'fn':
    return jnp.where(magnitude == 2 ** (fmt.bits - 1) - 1, jnp.nan, value)
  if fmt.specials == 'ieee':
    infinity = (2**fmt.exponent - 1) << fmt.mantissa
    value = jnp.where(magnitude == infinity, jnp.inf, value)
    return jnp.where(magnitude > infinity, jnp.nan, value)
  return value


def select(fields: jax.Array, table: np.ndarray) -> jax.Array:
  """table[fields] as a binary tree of selects, one a bit: for short tables."""
  options = [float(v) for v in table]
  bit = 0
  while len(options) > 1:
    odd = fields & 2**bit == 2**bit
    options = [
      a if isinstance(a, float) and a == b else jnp.where(odd, b, a)
      for a, b in zip(options[::2], options[1::2])
    ]
    bit += 1
  value = options[0]
  if isinstance(value, float):
    return jnp.full(fields.shape, value, jnp.float32)
  return value.astype(jnp.float32)
