"""QTensors as blocks of ggml, where a ggml type holds them exactly.

A type fits if decoding its blocks with the package gguf gives the numbers of
`quantize.dequantize`, all of them; that is checked at every encoding (a zero's
sign apart, which MXFP4 loses there). Wider groups fit by repeating their scale.
Layouts: ggml-quants of llama.cpp.

Q4_1 and Q5_1 hold a float16 minimum in place of a zero point: minus its code
times the scale. So the scale must leave room in float16's 11 significant bits
for the 4 or 5 of the code: e5m6 and e5m5, which add less than 1 % to the error.
"""

import dataclasses
from collections.abc import Callable

import numpy as np

from lowbit import formats, quantize
from lowbit.interop import gguf_file


@dataclasses.dataclass(frozen=True)
class Kind:
  """A ggml type: which codes it takes, and how it lays them out."""

  block: int
  spec: str  # An example that fits.
  takes: Callable  # (format) -> bool.
  encode: Callable  # (codes, scale, offset), blocks [n, block] -> bytes.


def encode(q: quantize.QTensor, kind: str) -> np.ndarray:
  """The blocks of a tensor.

  Args:
    q: [..., in], groups along the last axis.
    kind: Of `KINDS`.

  Returns:
    uint8 [..., bytes of a row].

  Raises:
    ValueError: If the type does not hold `q` exactly; it says which would.
  """
  gguf_file.check_package()
  if kind not in KINDS:
    raise ValueError(f'`kind` must be one of {", ".join(KINDS)}, got {kind!r}.')
  reason = _misfit(q, kind)
  raw = None if reason else _encode(q, kind)
  if raw is None or not _holds(raw, q, kind):
    reason = reason or _no_half(q)
    raise ValueError(
      f'{kind} does not hold {q.spec} of shape {q.shape} exactly: {reason}. '
      f'{_would_fit(q, kind)}'
    )
  return raw


def _no_half(q) -> str:
  if not q.spec.zero_point:
    return 'its scales are no float16 or out of range, or a block has several'
  return 'its scales, or minus zero point times scale, are no float16'


def fitting(q: quantize.QTensor) -> tuple[str, ...]:
  """The types that hold `q` exactly, smallest first."""
  gguf_file.check_package()
  fits = lambda k: not _misfit(q, k) and _holds(_encode(q, k), q, k)
  return tuple(kind for kind in KINDS if fits(kind))


def _would_fit(q, kind: str) -> str:
  others = fitting(q)
  if others:
    return f'Use {" or ".join(others)}.'
  return f'{kind} takes {KINDS[kind].spec}; or export it as F32.'


def _misfit(q, kind: str) -> str:
  """Why a type cannot hold these codes at all; '' if it may."""
  found = KINDS[kind]
  if q.axis != (-1,) or not q.ndim:
    return 'its groups do not run along the last axis'
  if q.shape[-1] % found.block:
    return f'its rows are no multiple of {found.block}'
  if isinstance(q.spec.format, formats.SideFormat):
    return f'it takes no {q.spec.format.name}'
  if q.spec.zero_point and not q.spec.integer_zero:
    return 'its zero points are no codes'
  return '' if found.takes(q) else f'it takes no {q.spec.format.name}'


def _encode(q, kind: str) -> np.ndarray:
  found = KINDS[kind]
  scale, zero = quantize.wide_scales(q)
  blocked = lambda a: np.asarray(a).reshape(-1, found.block)
  codes, scale = blocked(q.codes).astype(np.int32), blocked(scale)[:, :1]
  zero = np.zeros_like(scale) if zero is None else blocked(zero)[:, :1]
  with np.errstate(all='ignore'):  # What overflows is found by `_holds`.
    raw = found.encode(codes, scale, -zero * scale)
  return raw.reshape(*q.shape[:-1], -1)


def _holds(raw, q, kind: str) -> bool:
  """Whether the blocks decode to what `q` stands for."""
  import gguf

  with np.errstate(all='ignore'):
    got = gguf.dequantize(raw, gguf.GGMLQuantizationType[kind])
  return np.array_equal(got.reshape(q.shape), quantize.dequantize(q))


def _half(x) -> np.ndarray:
  """float16 as bytes: [n, 1] -> [n, 2]."""
  return np.ascontiguousarray(x.astype('<f2')).view(np.uint8)


def _nibbles(u) -> np.ndarray:
  """[n, 32] below 16 -> [n, 16]: the first half low, the second high."""
  return (u[:, :16] | u[:, 16:] << 4).astype(np.uint8)


def _fifths(u) -> np.ndarray:
  """[n, 32] below 32 -> the high bits as 4 bytes, then nibbles."""
  high = np.packbits((u >> 4).astype(np.uint8), axis=1, bitorder='little')
  return np.concatenate([high, _nibbles(u & 15)], axis=1)


def _q4_0(codes, scale, offset):
  return np.concatenate([_half(scale), _nibbles(codes + 8)], axis=1)


def _q5_0(codes, scale, offset):
  return np.concatenate([_half(scale), _fifths(codes + 16)], axis=1)


def _q4_1(codes, scale, offset):
  parts = [_half(scale), _half(offset), _nibbles(codes)]
  return np.concatenate(parts, axis=1)


def _q5_1(codes, scale, offset):
  return np.concatenate([_half(scale), _half(offset), _fifths(codes)], axis=1)


def _q8_0(codes, scale, offset):
  return np.concatenate([_half(scale), codes.astype(np.int8).view(np.uint8)], 1)


def _mxfp4(codes, scale, offset):
  exponent = scale.astype('<f4').view(np.uint32) >> 23  # Of a power of two.
  return np.concatenate([exponent.astype(np.uint8), _nibbles(codes)], axis=1)


def _tq2_0(codes, scale, offset):
  """Two halves of 4 x 32 codes, two bits each."""
  shifts = np.asarray([0, 2, 4, 6])[:, None]
  fields = (codes + 1).reshape(-1, 2, 4, 32) << shifts
  packed = fields.sum(axis=2).reshape(len(codes), -1).astype(np.uint8)
  return np.concatenate([packed, _half(scale)], axis=1)


def _tq1_0(codes, scale, offset):
  """160 and 80 codes, five a byte, and 16, four a byte."""
  digits = codes + 1
  parts = [
    _base3(digits[:, :160].reshape(-1, 5, 32)),
    _base3(digits[:, 160:240].reshape(-1, 5, 16)),
    _base3(digits[:, 240:].reshape(-1, 4, 4)),
  ]
  return np.concatenate([*parts, _half(scale)], axis=1)


def _base3(digits) -> np.ndarray:
  """Digits [n, d, k] as bytes [n, k]: a fraction of 3^5 in 1/256, rounded up.

  So that a reader finds each digit as the carry of times 3.
  """
  weights = 3 ** np.arange(4, 4 - digits.shape[1], -1)[:, None]
  value = (digits * weights).sum(axis=1)
  return (-(-value * 256 // 243)).astype(np.uint8)


def _signed(bits: int) -> Callable:
  def takes(q):
    fmt = q.spec.format
    whole = isinstance(fmt, formats.Integer) and fmt.signed
    return whole and fmt.bits <= bits and not q.spec.zero_point

  return takes


def _affine(bits: int) -> Callable:
  return lambda q: q.spec.integer_zero and q.spec.format.bits <= bits


def _ternary(q) -> bool:
  return _signed(2)(q) and bool(np.abs(np.asarray(q.codes)).max(initial=0) <= 1)


KINDS = {
  'TQ1_0': Kind(256, 'ternary@g256:fp16', _ternary, _tq1_0),
  'TQ2_0': Kind(256, 'ternary@g256:fp16', _ternary, _tq2_0),
  'MXFP4': Kind(32, 'mxfp4', lambda q: q.spec.format.name == 'e2m1', _mxfp4),
  'Q4_0': Kind(32, 'int4@g32:fp16', _signed(4), _q4_0),
  'Q4_1': Kind(32, 'int4z@g32:e5m6ieee', _affine(4), _q4_1),
  'Q5_0': Kind(32, 'int5@g32:fp16', _signed(5), _q5_0),
  'Q5_1': Kind(32, 'int5z@g32:e5m5ieee', _affine(5), _q5_1),
  'Q8_0': Kind(32, 'int8@g32:fp16', _signed(8), _q8_0),
}
