"""Names of formats: one text for each value, both ways."""

import difflib
import functools
import re

from lowbit.formats import (
  base,
  catalogue,
  dint,
  fixed,
  integer,
  minifloat,
  posit,
  side,
)

_FIXED = {
  'fp16': minifloat.Minifloat(5, 10, 'ieee'),
  'bf16': minifloat.Minifloat(8, 7, 'ieee'),
  'fp32': minifloat.Float32(),
  'e8m0': minifloat.E8M0(),
  'ternary': integer.Integer(2, ternary=True),
  'bnbfp4': catalogue.bnb_fp4(),
}


# What others call them, and what it is here.
_ELSEWHERE = {
  'binary': 'int1',
  'bfloat16': 'bf16',
  'float16': 'fp16',
  'float32': 'fp32',
  'fp4': 'e2m1 or bnbfp4',
  'fp6': 'e2m3 or e3m2',
  'fp8': 'e4m3 or e5m2',
}


def _minifloat(match):
  if match['short']:
    split, specials = minifloat.SPLITS[match['short']], 'ieee'
  else:
    split = (int(match['e']), int(match['m']))
    specials = match['kind'] or minifloat.PLAIN.get(split, 'finite')
  bias = int(match['bias']) if match['bias'] else None
  return minifloat.Minifloat(*split, specials, bias, not match['over'])


_PATTERNS = (
  (
    r'int(?P<b>\d+)(?P<f>f?)',
    lambda m: integer.Integer(int(m['b']), full_range=bool(m['f'])),
  ),
  (r'uint(?P<b>\d+)', lambda m: integer.Integer(int(m['b']), signed=False)),
  (
    r'((?P<short>fp16|bf16)|'
    r'e(?P<e>\d+)m(?P<m>\d+)(?P<kind>finite|ieee|fnuz|fn)?)'
    r'(_bias(?P<bias>-?\d+))?(?P<over>_overflow)?',
    _minifloat,
  ),
  (
    r'posit(?P<b>\d+)_(?P<es>\d+)',
    lambda m: posit.Posit(int(m['b']), int(m['es'])),
  ),
  (r'dint(?P<b>\d+)', lambda m: dint.DInt(int(m['b']))),
  (r'nf(?P<b>\d+)', lambda m: catalogue.nf(int(m['b']))),
  (
    r'(?P<u>u?)dynamic(?P<b>\d+)',
    lambda m: catalogue.dynamic(int(m['b']), not m['u']),
  ),
  (r'de0_(?P<b>\d+)', lambda m: catalogue.dynamic_without_zero(int(m['b']))),
  (
    r'linear0_(?P<b>\d+)',
    lambda m: catalogue.linear_without_zero(int(m['b'])),
  ),
  (r'linear2_(?P<b>\d+)', lambda m: catalogue.linear_square(int(m['b']))),
  (r'flint(?P<b>\d+)', lambda m: catalogue.flint(int(m['b']))),
  (r'shift(?P<b>\d+)', lambda m: catalogue.shift(int(m['b']))),
  (r'log(?P<b>\d+)', lambda m: catalogue.log(int(m['b']))),
  (r'halving(?P<b>\d+)', lambda m: catalogue.halving(int(m['b']))),
  (r'ulog(?P<b>\d+)', lambda m: catalogue.ulog(int(m['b']))),
  (
    r'power(?P<b>\d+)_(?P<a>\d+)',
    lambda m: catalogue.power(int(m['b']), int(m['a'])),
  ),
  (
    r'sulq(?P<b>\d+)_(?P<eta>\d+)',
    lambda m: catalogue.sulq(int(m['b']), int(m['eta'])),
  ),
  (
    r'fixed(?P<b>\d+)_(?P<f>-?\d+)',
    lambda m: fixed.FixedPoint(int(m['b']), int(m['f'])),
  ),
  (
    r'dmf(?P<e>\d+)_(?P<m>\d+)',
    lambda m: catalogue.denormal(int(m['e']), int(m['m'])),
  ),
  (r'bitmod(?P<b>\d+)', lambda m: side.bitmod(int(m['b']))),
  (r'adint(?P<b>\d+)', lambda m: side.affine_dint(int(m['b']))),
  (r'afpq_(?P<inner>[\w-]+)', lambda m: side.TwoSided(_parse(m['inner']))),
)


@functools.cache
def _parse(name: str) -> base.Format:
  if name in _FIXED:
    return _FIXED[name]
  for pattern, build in _PATTERNS:
    match = re.fullmatch(pattern, name, re.ASCII)
    if match and not re.search(r'(?<!\d)0\d', name):  # int04 is no name.
      return build(match)
  plain = re.sub(r'\s', '', name).lower()
  close = difflib.get_close_matches(plain, names(), n=3)
  hint = f' Did you mean {" or ".join(close)}?' if close else ''
  if plain in _ELSEWHERE:
    hint = f' Here it is {_ELSEWHERE[plain]}.'
  if re.match(r'(mx|nv|bfp)', plain) or set(plain) & set('@:~!'):
    hint = f' {name!r} looks like a spec: use lowbit.Spec.parse or quantize.'
  raise ValueError(
    f'Unknown format {name!r}.{hint} Formats are written int4, int4f (full '
    'range), uint4, ternary, e4m3 (suffixes finite, ieee, fn, fnuz), e8m0, '
    'fp16, bf16, fp32, posit8_1, dint4, nf4, bnbfp4, dynamic8, udynamic8, '
    'de0_4, linear0_4, linear2_4, flint4, shift4, log4, ulog4, halving4, '
    'power4_65, sulq4_50, fixed8_4, dmf2_3, bitmod4, adint4, afpq_e2m1.'
  )


def get(name: str | base.Format) -> base.Format:
  """The format of this name; a format is returned as it is.

  Raises:
    ValueError: If the name is unknown, or names a format that cannot be.
  """
  if isinstance(name, base.Format):
    return name
  if not isinstance(name, str):
    raise TypeError(f'`name` must be a string or a Format, got {name!r}.')
  return _parse(name)


def names() -> tuple[str, ...]:
  """Canonical names of the usual formats, for tables and sweeps.

  Those with side data (bitmod4, adint4, afpq_...) exist in blocks only, and
  are left out, as they have no codes of their own.
  """
  integers = [f'int{b}' for b in (1, 2, 3, 4, 5, 6, 7, 8, 16)]
  full = [f'int{b}f' for b in (2, 3, 4, 8)]
  unsigned = [f'uint{b}' for b in (1, 2, 3, 4, 8)]
  floats = [
    'e2m1',
    'e3m0',
    'e1m2',
    'e2m2',
    'e3m1',
    'e2m3',
    'e3m2',
    'e4m1',
    'e2m5',
    'e3m4',
    'e4m3',
    'e5m2',
    'e4m3ieee',
    'e4m3finite',
    'e4m3fnuz',
    'e5m2fnuz',
    'fp16',
    'bf16',
    'fp32',
    'e8m0',
  ]
  posits = [
    'posit4_1',
    'posit6_1',
    'posit8_0',
    'posit8_1',
    'posit8_2',
    'posit16_1',
  ]
  tables = [
    'dint3',
    'dint4',
    'dint8',
    'nf2',
    'nf3',
    'nf4',
    'bnbfp4',
    'flint3',
    'flint4',
    'flint5',
    'dynamic8',
    'udynamic8',
    'dynamic4',
    'de0_4',
    'linear0_4',
    'linear2_4',
    'shift2',
    'shift4',
    'log4',
    'ulog4',
    'halving3',
    'power4_65',
    'sulq4_50',
    'fixed8_4',
    'dmf2_3',
  ]
  return (*integers, *full, *unsigned, 'ternary', *floats, *posits, *tables)
