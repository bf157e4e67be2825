"""Spec: how one tensor is quantized, as a value with a short name.

  name   := format ['z'] ['!'] ['@' block] [':' scale] ['~' rounding]
  block  := tensor | channel | token | g<size> | b<size> | t<rows>x<columns>
  scale  := [<format> | '(' name ')'] ['-' rule] | rule
  rule   := absmax | mse | p<percent> | entropy | density | unit
            | floor | ceil | rceil | even | rne | bfp | pow2mse
            | mse<steps>_<smallest>_<norm> | density<percent>

'z' asks for a zero point, '!' refuses axes that groups do not divide. Examples:
int4@g128, int4z@g64, e4m3@channel, e2m1@b32:e8m0-ceil, int8@tensor:p99.9,
nf4@g64:(int8@g256), int4@g64~stochastic; and mxfp4, mxfp6_e2m3, mxfp6_e3m2,
mxfp8_e4m3, mxfp8_e5m2, mxint8, bfp4, bfp6, bfp8 and nvfp4 as shorthands.
"""

import dataclasses
import functools
import numbers
import re

import numpy as np

from lowbit import formats
from lowbit.quantize import blocking, scales

WIDE = ('bf16', 'fp16', 'fp32')  # Cast without a scale unless one is given.


@dataclasses.dataclass(frozen=True)
class Spec:
  """How to quantize one tensor: a static jit argument, never data.

  Attributes:
    format: Element format, or its name.
    block: Which elements share a scale: 'tensor'; 'channel' or 'token', one
      scale for each index of the axes that are not contracted; an int, the
      group size along the contraction axis; or a tile (rows along the
      contraction axis, columns along the last other axis).
    scale: Scale rule, see `scales`.
    scale_format: None for float32; a format with a NaN, in which scales are
      cast (floats of 16 bits are kept as such, others as codes); or a Spec, by
      which the scales are quantized in turn: two levels, as in NVFP4. A scale
      above the range saturates; one that rounds to 0 makes its block zeros.
    zero_point: Affine: integers (the format is uintN, the zero point a code),
      or any other format with a real zero point in float32.
    rounding: 'nearest', 'stochastic', 'floor' or 'away'.
    pad: Whether a last block may be ragged (it is padded with zeros, and cut),
      and a group longer than its axis (it is the axis).
  """

  format: formats.Format
  block: blocking.Block = 'channel'
  scale: scales.Rule = scales.Absmax()
  scale_format: 'formats.Format | Spec | None' = None
  zero_point: bool = False
  rounding: str = 'nearest'
  pad: bool = True

  def __post_init__(self):
    object.__setattr__(self, 'format', formats.get(self.format))
    object.__setattr__(self, 'block', _checked_block(self.block))
    if not callable(self.scale) or not hasattr(self.scale, 'name'):
      raise TypeError(
        '`scale` must be a rule such as lowbit.quantize.Absmax(), got '
        f'{self.scale!r}. Spec.parse takes names.'
      )
    if self.rounding not in formats.ROUNDINGS:
      raise ValueError(
        f'`rounding` must be one of {formats.ROUNDINGS}, got {self.rounding!r}.'
      )
    unsigned = isinstance(self.format, formats.Integer) and (
      not self.format.signed
    )
    signed = isinstance(self.format, formats.Integer) and self.format.signed
    if (unsigned and not self.zero_point) or (signed and self.zero_point):
      raise ValueError(
        f'Among integers `zero_point` goes with unsigned ones, and only with '
        f'them; got format {self.format.name}, zero_point={self.zero_point}. '
        'Write int4z for affine integers.'
      )
    if self.zero_point:
      self._check_affine()
    if isinstance(self.scale, scales.Entropy) and not (
      signed and self.format.bits > 1
    ):
      raise ValueError(
        'The rule entropy counts the levels of a signed integer, such as '
        f'int8@tensor:entropy; got {self.format.name}.'
      )
    object.__setattr__(self, 'scale_format', _checked(self.scale_format))
    if isinstance(self.scale, scales.Density) and not self.zero_point:
      raise ValueError(
        "The rule density centres a zero point: write 'z', as in "
        f'nf4z@g128:density; got {self.format.name} without.'
      )

  def _check_affine(self):
    if isinstance(self.format, formats.DInt):
      raise ValueError(
        'The halves of dINT lie beside its own zero, which a zero point moves. '
        f'Write a{self.format.name} for a zero point in each block.'
      )
    largest = np.finfo(np.float32).max
    if self.format.bits > 16 or np.ptp(self.format.values()) > largest:
      raise ValueError(
        f'A zero point needs a range that fits in float32; {self.format.name} '
        "is wider. Drop the 'z', or use a narrower format."
      )
    if isinstance(self.format, formats.SideFormat) or (
      self.rounding == 'away' or not hasattr(self.scale, 'range')
    ):
      raise ValueError(
        'A zero point goes with the rules absmax, mse, percentile and density, '
        'a format without side data, and no rounding away from zero; got '
        f'{self.format.name}, {self.scale.name}, {self.rounding}.'
      )

  @property
  def integer_zero(self) -> bool:
    """Whether the zero point is a code: affine integers."""
    return self.zero_point and isinstance(self.format, formats.Integer)

  @staticmethod
  def parse(name: 'str | Spec') -> 'Spec':
    """The spec of this name; a Spec is returned as it is.

    Raises:
      ValueError: If the name, or a part of it, is unknown; it says what is
        allowed.
    """
    if isinstance(name, Spec):
      return name
    if not isinstance(name, str):
      raise TypeError(f'`name` must be a string or a Spec, got {name!r}.')
    return _parse(name)

  def __str__(self) -> str:
    plain = dataclasses.replace(self, rounding='nearest', pad=True)
    name = _SHORT_NAMES.get(plain) or _long_name(plain)
    if not self.pad:
      head, at, tail = name.partition('@')
      name = f'{head}!{at}{tail}'
    return name if self.rounding == 'nearest' else f'{name}~{self.rounding}'

  @property
  def scale_bits(self) -> float:
    """Bits of one scale at rest, second-level scales left out."""
    inner = self.scale_format
    if inner is None:
      return 32
    return (inner.format if isinstance(inner, Spec) else inner).storage_bits


def _checked(scale_format):
  """The scale format, float32 as None; raises if it cannot hold scales."""
  if isinstance(scale_format, Spec):
    if scale_format.rounding == 'stochastic':
      raise ValueError(
        'Scales are not rounded stochastically: no key reaches them. Got scale '
        f'spec {scale_format}; use ~floor or ~nearest.'
      )
    return scale_format
  if scale_format is None:
    return None
  if not isinstance(scale_format, str | formats.Format):
    raise TypeError(
      '`scale_format` must be None, a format, its name or a Spec; got '
      f'{scale_format!r}.'
    )
  fmt = formats.get(scale_format)
  if isinstance(fmt, formats.Float32):
    return None
  if isinstance(fmt, formats.SideFormat) or nan_code(fmt) is None:
    raise ValueError(
      f'A scale format needs a NaN, to carry NaN and Inf; {fmt.name} has none. '
      f'Use e8m0, e4m3, e5m2, bf16, fp16, or a Spec such as ({fmt.name}@g256).'
    )
  return fmt


@functools.cache
def nan_code(fmt: formats.Format) -> int | None:
  """The first code that decodes to NaN, if there is one."""
  codes = fmt.codes()
  nan = codes[np.isnan(np.asarray(fmt.decode(codes)))]
  return int(nan[0]) if len(nan) else None


def _checked_block(block) -> blocking.Block:
  """`block` with Python's ints."""
  if isinstance(block, str) and block in blocking.NAMED:
    return block
  sizes = block if isinstance(block, tuple) else (block,)
  is_size = lambda s: isinstance(s, numbers.Integral) and s > 0
  if not all(is_size(s) and not isinstance(s, bool) for s in sizes) or (
    isinstance(block, tuple) and len(block) != 2
  ):
    raise ValueError(
      f'`block` must be one of {blocking.NAMED}, a positive group size, or a '
      f'tile (rows, columns); got {block!r}.'
    )
  return tuple(map(int, block)) if isinstance(block, tuple) else int(block)


def _long_name(spec: Spec) -> str:
  fmt = (
    spec.format.name.removeprefix('u')
    if spec.integer_zero
    else (spec.format.name)
  )
  fmt += 'z' if spec.zero_point else ''
  if _is_cast(spec.format) and spec == _wide(spec.format):
    return fmt
  coded = isinstance(spec.scale_format, formats.Format)
  letter = 'b' if coded and spec.scale_format.bits <= 8 else 'g'
  if isinstance(spec.block, int):
    block = f'{letter}{spec.block}'
  elif isinstance(spec.block, tuple):
    block = f't{spec.block[0]}x{spec.block[1]}'
  else:
    block = spec.block
  parts = []
  if isinstance(spec.scale_format, Spec):
    parts.append(f'({spec.scale_format})')
  elif spec.scale_format is not None:
    parts.append(spec.scale_format.name)
  if spec.scale != scales.Absmax():
    parts.append(spec.scale.name)
  elif parts == ['e8m0']:  # A bare e8m0 means the OCP rule.
    parts.append('absmax')
  return f'{fmt}@{block}' + (f':{"-".join(parts)}' if parts else '')


def _is_cast(fmt: formats.Format) -> bool:
  """Whether a bare name means a cast, without a scale."""
  return fmt.name in WIDE or isinstance(fmt, formats.FixedPoint)


def _wide(fmt: formats.Format) -> Spec:
  return Spec(fmt, 'tensor', scales.Unit())


_NAME = re.compile(
  r'(?P<format>[\w-]+?)(?P<zero>((?<!fnu)z)?)(?P<strict>!?)(@(?P<block>\w+))?'
  r'(:(?P<scale>\(.+\)(-[^~()]+)?|[^~()]+))?(~(?P<rounding>\w+))?',
  re.ASCII,
)


@functools.cache
def _parse(name: str) -> Spec:
  match = _NAME.fullmatch(name)
  if not match:
    raise ValueError(
      f'Cannot read {name!r} as a spec. Write format[@block][:scale]'
      '[~rounding], for example int4@g64, e2m1@b32:e8m0-ceil, or mxfp4; in '
      'lower case, without spaces.'
    )
  spec = _base(name, match)
  changes = {'pad': not match['strict']}
  if match['rounding']:
    changes['rounding'] = match['rounding']
  return dataclasses.replace(spec, **changes)


def _base(name: str, match) -> Spec:
  head = match['format']
  if head in SHORTHANDS:
    if match['block'] or match['scale'] or match['zero']:
      raise ValueError(
        f'{head} fixes its block and scale; got {name!r}. For another choice '
        f'write it out, for example {_long_name(SHORTHANDS[head])}.'
      )
    return SHORTHANDS[head]
  if re.match(r'(mx|nv)', head):
    raise ValueError(
      f'Unknown format {head!r}. The shorthands are {", ".join(SHORTHANDS)}.'
    )
  affine_integer = match['zero'] and re.fullmatch(r'int\d+', head)
  fmt = formats.get(f'u{head}' if affine_integer else head)
  if _is_cast(fmt) and not any(match[k] for k in ('block', 'scale', 'zero')):
    return _wide(fmt)
  scale_format, rule = _parse_scale(match['scale'])
  block = _parse_block(match['block'] or 'channel')
  return Spec(fmt, block, rule, scale_format, bool(match['zero']))


def _parse_block(text: str) -> blocking.Block:
  if text in blocking.NAMED:
    return text
  if match := re.fullmatch(r'[gb](\d+)', text):
    return int(match[1])
  if match := re.fullmatch(r't(\d+)x(\d+)', text):
    return int(match[1]), int(match[2])
  raise ValueError(
    f'Unknown block @{text}. Use @tensor, @channel, @token, @g64 (groups), '
    '@b32 (blocks), or @t128x128 (tiles).'
  )


def _parse_scale(text: str | None):
  """Returns (scale format, rule) of the part behind ':'."""
  if not text:
    return None, scales.Absmax()
  match = re.fullmatch(
    r'(\((?P<spec>.+)\)|(?P<word>[^-]+))(-(?P<rule>.+))?', text
  )
  if not match:
    raise ValueError(f'Cannot read the scale {text!r} of a spec.')
  rule = scales.parse(match['rule']) if match['rule'] else scales.Absmax()
  if match['spec']:
    return _parse(match['spec']), rule
  word = match['word']
  try:
    fmt = formats.get(word)
  except ValueError:
    if match['rule']:
      raise
    return None, scales.parse(word)
  if word == 'e8m0' and not match['rule']:
    rule = scales.PowerOfTwo('floor')
  return (None if word == 'fp32' else fmt), rule


def _mx(element: str) -> Spec:
  return Spec(element, 32, scales.PowerOfTwo('floor'), formats.E8M0())


def _bfp(bits: int) -> Spec:
  """Block floating point of P104: blocks of 16, sign and magnitude."""
  return Spec(f'int{bits}', 16, scales.PowerOfTwo('bfp'), formats.E8M0())


# MXINT8 has elements i / 64 in OCP's text and i here, with the exponent of its
# scale lower by 6: the same values.
SHORTHANDS = {
  'mxfp4': _mx('e2m1'),
  'mxfp6_e2m3': _mx('e2m3'),
  'mxfp6_e3m2': _mx('e3m2'),
  'mxfp8_e4m3': _mx('e4m3'),
  'mxfp8_e5m2': _mx('e5m2'),
  'mxint8': _mx('int8'),
  'bfp4': _bfp(4),
  'bfp6': _bfp(6),
  'bfp8': _bfp(8),
  'nvfp4': Spec('e2m1', 16, scale_format=Spec('e4m3', 'tensor')),
}
_SHORT_NAMES = {spec: name for name, spec in SHORTHANDS.items()}
