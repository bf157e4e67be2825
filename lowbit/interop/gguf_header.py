"""The header of a GGUF file, read with suspicion.

Every size that the file claims is checked against the bytes that it has, in
Python's integers, before anything of that size is made. So what a lying header
can cost is bounded by `HEADER` and `ELEMENTS`. Layout: the GGUF specification
of ggml, versions 2 and 3, little-endian.
"""

import dataclasses
import math
import struct
from collections.abc import Mapping

import numpy as np

HEADER = 128 * 2**20  # Bytes of fields and names; larger ones are refused.
ELEMENTS = 2**22  # Of one array of the metadata.
DIMENSIONS = 4  # Axes of a tensor, as in ggml.

_STRING, _ARRAY = 8, 9
_SCALARS = {
  0: '<u1',
  1: '<i1',
  2: '<u2',
  3: '<i2',
  4: '<u4',
  5: '<i4',
  6: '<f4',
  7: '?',
  10: '<u8',
  11: '<i8',
  12: '<f8',
}


@dataclasses.dataclass(frozen=True)
class Tensor:
  """Where a tensor lies in its file."""

  kind: int  # ggml type.
  shape: tuple[int, ...]  # In NumPy's order, the last axis contiguous.
  offset: int  # Bytes from the start of the file.
  nbytes: int


@dataclasses.dataclass(frozen=True)
class Header:
  """Metadata and tensors of a GGUF file, all within its bytes."""

  fields: Mapping[str, object]  # Scalars, str, NumPy arrays, lists of str.
  tensors: Mapping[str, Tensor]


def parse(data) -> Header:
  """Reads the header.

  Args:
    data: uint8 [bytes], the whole file, best memory-mapped.

  Raises:
    ValueError: Saying what is wrong, if the header is truncated or of another
      version; claims sizes that overflow or lie outside of the file; or has
      unknown types, duplicate names, or tensors that overlap.
  """
  cursor = _Cursor(data)
  if bytes(cursor.take(4, 'the magic number')) != b'GGUF':
    raise ValueError('it does not begin as one')
  version = cursor.number('<I')
  if version not in (2, 3):
    hint = ' (big-endian?)' if version & 0xFFFF == 0 else ''
    raise ValueError(f'version {version}{hint} is neither 2 nor 3')
  tensors, fields = cursor.number('<Q'), cursor.number('<Q')
  cursor.expect(tensors, 24, 'tensors')
  found = {}
  for _ in range(cursor.expect(fields, 13, 'fields')):
    _add(found, cursor.text(), cursor.value(cursor.number('<I')), 'field')
  claims = {}
  for _ in range(cursor.expect(tensors, 24, 'tensors')):
    _add(claims, cursor.text(), _claim(cursor), 'tensor')
  start = _align(cursor.at, found.get('general.alignment', 32))
  placed = {n: _place(n, c, start, data.size) for n, c in claims.items()}
  _check_disjoint(placed)
  return Header(found, placed)


def _add(known: dict, name: str, value, what: str) -> None:
  if name in known:
    raise ValueError(f'it has two {what}s of the name {name!r}')
  known[name] = value


def _claim(cursor) -> tuple[tuple[int, ...], int, int]:
  """(shape, kind, offset) as the file has them."""
  axes = cursor.number('<I')
  if not 1 <= axes <= DIMENSIONS:
    raise ValueError(f'a tensor of {axes} axes; 1 to {DIMENSIONS} are known')
  shape = tuple(cursor.number('<Q') for _ in range(axes))[::-1]
  return shape, cursor.number('<I'), cursor.number('<Q')


def _align(at: int, alignment) -> int:
  power = isinstance(alignment, int) and alignment.bit_count() == 1
  if not power or not 8 <= alignment <= 2**16:
    raise ValueError(
      f'general.alignment {alignment!r} is no power of two from 8 to 65536'
    )
  return -(-at // alignment) * alignment


def _place(name: str, claim, start: int, size: int) -> Tensor:
  shape, kind, offset = claim
  block, width = block_size(kind, name)
  count = math.prod(shape)
  if not count or shape[-1] % block:
    raise ValueError(
      f'tensor {name!r} of shape {shape} has rows that are no positive '
      f'multiple of its block, {block}'
    )
  nbytes = count // block * width
  if start + offset + nbytes > size:
    raise ValueError(
      f'tensor {name!r} of shape {shape} needs {nbytes} bytes from '
      f'{start + offset} on, and the file ends at {size}'
    )
  return Tensor(kind, shape, start + offset, nbytes)


def block_size(kind: int, name: str) -> tuple[int, int]:
  """(elements, bytes) of one block of a ggml type; ValueError if unknown."""
  import gguf

  try:
    return gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType(kind)]
  except (KeyError, ValueError) as error:
    raise ValueError(
      f'tensor {name!r} has the unknown ggml type {kind}'
    ) from error


def _check_disjoint(tensors: Mapping[str, Tensor]) -> None:
  end, before = 0, ''
  for name, t in sorted(tensors.items(), key=lambda item: item[1].offset):
    if t.offset < end:
      raise ValueError(f'tensors {before!r} and {name!r} overlap')
    end, before = t.offset + t.nbytes, name


class _Cursor:
  """A place in the bytes that only moves within them."""

  def __init__(self, data):
    self.data, self.at = data, 0
    self.end = min(data.size, HEADER)

  def take(self, count: int, what: str):
    """The next bytes."""
    if count > self.end - self.at:
      where = 'header' if self.end == HEADER else 'file'
      raise ValueError(
        f'{what} of {count} bytes at {self.at} reaches beyond the end of the '
        f'{where}, {self.end}'
      )
    part = self.data[self.at : self.at + count]
    self.at += count
    return part

  def expect(self, count: int, least: int, what: str) -> int:
    """`count`, if so many entries of `least` bytes can follow."""
    if count * least > self.end - self.at:
      raise ValueError(f'{count} {what} cannot lie in {self.data.size} bytes')
    return count

  def number(self, form: str) -> int:
    """One integer."""
    raw = self.take(struct.calcsize(form), 'a number')
    return struct.unpack(form, raw)[0]

  def text(self) -> str:
    """A string, its length before it."""
    raw = self.take(self.number('<Q'), 'a string')
    try:
      return bytes(raw).decode()
    except UnicodeDecodeError as error:
      raise ValueError(f'a string at {self.at} is not UTF-8') from error

  def value(self, kind: int):
    """A value of the metadata."""
    if kind == _STRING:
      return self.text()
    if kind == _ARRAY:
      return self.array(self.number('<I'), self.number('<Q'))
    return self.scalars(kind, 1)[0].item()

  def array(self, kind: int, count: int):
    """An array of the metadata: a list of str, or a NumPy array."""
    if count > ELEMENTS:
      raise ValueError(f'an array of {count} elements, more than {ELEMENTS}')
    if kind == _STRING:
      return [self.text() for _ in range(self.expect(count, 8, 'strings'))]
    return self.scalars(kind, count)

  def scalars(self, kind: int, count: int):
    """Numbers or booleans."""
    if kind not in _SCALARS:
      raise ValueError(f'a field of the unknown type {kind}')
    dtype = np.dtype(_SCALARS[kind])
    raw = self.take(count * dtype.itemsize, 'a field')
    return np.frombuffer(bytes(raw), np.uint8 if kind == 7 else dtype).astype(
      dtype
    )
