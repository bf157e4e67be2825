"""Every format of at most 16 bits, against oracles written for this test.

An oracle is built in float64 from a format's definition alone: the value of
every code, and between neighbours the number where rounding changes sides and
the side that the number itself takes. Probed are all values, all such edges as
float32, and their float32 neighbours.
"""

import itertools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from scipy import stats

from lowbit import formats


class Oracle(NamedTuple):
  """Codes by rising value; edges[i] lies between values i and i + 1."""

  codes: np.ndarray
  values: np.ndarray
  edges: np.ndarray
  tie_up: np.ndarray
  minus_zero: int | None = None

  def encode(self, x):
    x = x.astype(np.float64)
    count = np.searchsorted(self.edges, x, side='left')
    at = np.minimum(count, len(self.edges) - 1)
    count = count + ((self.edges[at] == x) & self.tie_up[at] & (count == at))
    code = self.codes[count]
    if self.minus_zero is None:
      return code
    is_zero = (self.values[count] == 0) & np.signbit(x)
    return np.where(is_zero, self.minus_zero, code)

  def probes(self):
    """float32 numbers where an encoder may err; no subnormals of float32."""
    points = np.concatenate([self.values, self.edges])
    with np.errstate(over='ignore', under='ignore'):
      points = points.astype(np.float32)
      x = np.concatenate(
        [
          points,
          np.nextafter(points, np.float32(-np.inf)),
          np.nextafter(points, np.float32(np.inf)),
          np.float32([0.0, -0.0, 3e38, -3e38, 2e-38, -2e-38]),
        ]
      )
    return x[np.isfinite(x) & ((np.abs(x) >= 2.0**-126) | (x == 0))]


def middles(values):
  return (values[1:] + values[:-1]) / 2


def whole(low, high, step=1.0):
  """Multiples of a step, ties to the even one."""
  numbers = np.arange(low, high + 1)
  values = numbers * step
  return Oracle(numbers, values, middles(values), numbers[1:] % 2 == 0)


def minifloat(fmt):
  """From E, M, the bias and the special codes."""
  e, m = fmt.exponent, fmt.mantissa
  body = np.arange(2 ** (e + m))
  field, fraction = body >> m, (body & (2**m - 1)) / 2**m
  values = np.where(
    field == 0,
    2.0 ** (1 - fmt.bias) * fraction,
    2.0 ** (field - fmt.bias) * (1 + fraction),
  )
  finite = {
    'finite': 2 ** (e + m),
    'ieee': (2**e - 1) * 2**m,
    'fn': 2 ** (e + m) - 1,
    'fnuz': 2 ** (e + m),
  }[fmt.specials]
  body, values = body[:finite], values[:finite]
  edges, up = middles(values), body[1:] % 2 == 0
  sign = 2 ** (e + m)
  return Oracle(
    np.concatenate([body[:0:-1] + sign, body]),
    np.concatenate([-values[:0:-1], values]),
    np.concatenate([-edges[::-1], edges]),
    np.concatenate([~up[::-1], up]),
    None if fmt.specials == 'fnuz' else sign,
  )


def posit_values(n, es):
  """Values of the codes 1 .. 2^(n-1) - 1, bit by bit."""
  body = np.arange(1, 2 ** (n - 1))
  bits = (body[:, None] >> np.arange(n - 2, -1, -1)) & 1
  first = bits[:, :1]
  run = np.cumprod(bits == first, axis=1).sum(1)
  regime = np.where(first[:, 0] == 1, run - 1, -run)
  exponent = np.zeros(len(body))
  significand = np.ones(len(body))
  for j in range(n - 1):
    place = j - run - 1  # Behind the regime and its end.
    exponent += (
      bits[:, j] * ((place >= 0) & (place < es)) * (2.0 ** (es - 1 - place))
    )
    significand += bits[:, j] * (place >= es) * 2.0 ** (es - 1 - place)
  return 2.0 ** (regime * 2**es + exponent) * significand


def posit(fmt):
  """Edges are the posits of one more bit: nearest on the bit string."""
  n, es = fmt.bits, fmt.es
  body = np.arange(1, 2 ** (n - 1))
  values, edges = posit_values(n, es), posit_values(n + 1, es)[2:-1:2]
  up = body[1:] % 2 == 0
  return Oracle(
    np.concatenate([2**n - body[::-1], [0], body]),
    np.concatenate([-values[::-1], [0], values]),
    np.concatenate([-edges[::-1], [0, 0], edges]),
    np.concatenate([~up[::-1], [True, False], up]),
  )


def table(values, edges=None, tie_up=None):
  values = np.asarray(values, np.float32).astype(np.float64)
  codes = np.arange(len(values))
  edges = middles(values) if edges is None else np.asarray(edges)
  tie_up = codes[1:] % 2 == 0 if tie_up is None else tie_up
  return Oracle(codes, values, edges, tie_up)


def signed(magnitudes):
  return np.unique([s * m for m in magnitudes for s in (-1.0, 1.0)] + [])


def dint(bits):
  top = 2 ** (bits - 1) - 1
  numbers = np.arange(-top + 1, top)
  codes = np.insert(numbers, [top - 1, top], [-top, top])
  values = np.insert(numbers.astype(float), [top - 1, top], [-0.5, 0.5])
  up = np.where(values[1:] == np.round(values[1:]), values[1:] % 2 == 0, False)
  half = np.abs(values) == 0.5
  up = np.where(half[1:], False, np.where(half[:-1], True, up))
  return Oracle(codes, values, middles(values), up)


def nf(bits):
  delta = 1 - (1 / 32 + 1 / 30) / 2
  below = -stats.norm.ppf(np.linspace(delta, 0.5, 2 ** (bits - 1)))[:-1]
  above = stats.norm.ppf(np.linspace(delta, 0.5, 2 ** (bits - 1) + 1))[:-1]
  return table(np.sort(np.concatenate([below, [0.0], above])) / above.max())


def dynamic(bits, is_signed):
  """As in the released optimizers: interval means, decade by decade."""
  data = []
  for i in range(bits - 1):
    count = 2 ** (i if is_signed else i + 1) + 1
    ends = np.linspace(0.1, 1, count)
    means = 10.0 ** (i - (bits - 2)) * (ends[:-1] + ends[1:]) / 2
    data += means.tolist() + ((-means).tolist() if is_signed else [])
  return table(sorted([*data, 0.0, 1.0]))


def flint(bits):
  """As released: n - 2 mantissa bits around 1, one less a binade away."""
  n = bits - 1
  values = [0.0, 2.0 ** (n - 1)]
  for exponent in range(-n + 1, n - 1):
    mantissa = n - 2 - (exponent if exponent >= 0 else -exponent - 1)
    steps = np.arange(2**mantissa) / 2**mantissa
    values += (2.0**exponent * (1 + steps)).tolist()
  return table(signed(np.array(values) * 2 ** (n - 1)))


def log(bits):
  powers = 2.0 ** np.arange(2 ** (bits - 1))
  up = powers[:-1] * math.sqrt(2)
  # No float32 lies on an edge, but for 0: it goes to the even code.
  return table(signed(powers), np.concatenate([-up[::-1], [0.0], up]))


def ulog(bits):
  values = 2.0 ** -np.arange(2.0**bits)[::-1]
  return table(values, values[:-1] * math.sqrt(2))


def halving(bits):
  values = 2.0 ** -np.arange(2.0**bits)[::-1]
  return table(values, values[:-1], np.zeros(len(values) - 1, bool))


def power(bits, percent):
  n, a = 2 ** (bits - 1) - 1, percent / 100
  up = ((np.arange(n) + 0.5) / n) ** (1 / a)
  values = signed((np.arange(n + 1) / n) ** (1 / a))
  return table(values, np.concatenate([-up[::-1], up]))


def denormal(exponent, mantissa):
  """Every code's value, sign and magnitude, without an implicit one."""
  code = np.arange(2 ** (exponent + mantissa))
  field, fraction = code >> mantissa, code % 2**mantissa / 2**mantissa
  bias = 2 ** (exponent - 1) - 1
  return table(signed(np.unique(2.0 ** (field - bias) * fraction)))


KINDS = ('finite', 'ieee', 'fn', 'fnuz')
BIASES = {
  (4, 3): (-20, 0, 8, 60),
  (3, 2): (-50, 4, 33),
  (2, 1): (-2, 100),
  (3, 0): (2, 4, 90),
  (5, 2): (-60, 16, 77),
  (6, 1): (0, 32, 100),
}


def minifloats():
  """Every split of 2 to 8 bits with every convention, and unusual biases."""
  for e, m, kind in itertools.product(range(1, 8), range(7), KINDS):
    spare = kind in ('finite', 'fnuz') or (e > 1 and (kind == 'ieee' or m))
    if e + m <= 7 and spare:
      for bias in (None, *BIASES.get((e, m), ())):
        yield formats.Minifloat(e, m, kind, bias)


def wide_minifloats():
  for e, m, kind, bias in (
    (5, 10, 'ieee', None),
    (8, 7, 'ieee', None),
    (5, 10, 'finite', 20),
    (6, 9, 'fn', None),
    (7, 8, 'fnuz', None),
    (7, 8, 'ieee', 121),
    (4, 10, 'finite', -40),
    (8, 3, 'ieee', None),
    (3, 10, 'finite', 100),
    (2, 8, 'fn', None),
  ):
    yield formats.Minifloat(e, m, kind, bias)


def posits(widths):
  for n, es in itertools.product(widths, range(5)):
    if es < n - 1 and (n - 2) * 2**es <= 126:
      yield formats.Posit(n, es)


def integers():
  plus = np.array([True])
  signs = Oracle(np.array([-1, 1]), np.array([-1.0, 1.0]), np.zeros(1), plus)
  yield 'int1', lambda: signs
  yield 'ternary', lambda: whole(-1, 1)
  for b in range(1, 17):
    yield f'uint{b}', lambda b=b: whole(0, 2**b - 1)
  for b in range(2, 17):
    top = 2 ** (b - 1) - 1
    yield f'int{b}', lambda top=top: whole(-top, top)
    yield f'int{b}f', lambda top=top: whole(-top - 1, top)
    for f in (-3, 0, 4, 20):
      oracle = lambda top=top, f=f: whole(-top - 1, top, 2.0**-f)
      yield f'fixed{b}_{f}', oracle


def tables():
  for e, m in ((1, 2), (2, 3), (3, 4), (4, 3)):
    yield f'dmf{e}_{m}', lambda e=e, m=m: denormal(e, m)
  yield 'bnbfp4', lambda: table(signed((0, 0.0625, 2, 3, 4, 6, 8, 12)))
  for b in range(2, 9):
    yield f'nf{b}', lambda b=b: nf(b)
    yield f'log{b}', lambda b=b: log(b)
    yield f'shift{b}', lambda b=b: table(signed(2.0 ** np.arange(2 ** (b - 1))))
    for a in (10, 33, 50, 65, 100):
      yield f'power{b}_{a}', lambda b=b, a=a: power(b, a)
  for b in range(3, 9):
    yield f'dint{b}', lambda b=b: dint(b)
    yield f'flint{b}', lambda b=b: flint(b)
    yield f'dynamic{b}', lambda b=b: dynamic(b, True)
    yield f'udynamic{b}', lambda b=b: dynamic(b, False)
  for b in range(1, 7):
    yield f'ulog{b}', lambda b=b: ulog(b)
    yield f'halving{b}', lambda b=b: halving(b)


def cases():
  """(name, maker of its oracle) of every format with codes of its own."""
  yield from integers()
  for fmt in (*minifloats(), *wide_minifloats()):
    yield fmt.name, lambda fmt=fmt: minifloat(fmt)
  for fmt in posits((*range(3, 12), 16)):
    yield fmt.name, lambda fmt=fmt: posit(fmt)
  yield from tables()


CASES = dict(cases())


def check(encode, decode, fmt, oracle):
  codes = oracle.codes.astype(fmt.code_dtype)
  values = oracle.values.astype(np.float32)
  usable = (np.abs(values) >= 2.0**-126) | (values == 0)
  got = np.asarray(decode(codes))
  np.testing.assert_array_equal(got[usable], values[usable])
  x = oracle.probes()
  want = oracle.encode(x).astype(fmt.code_dtype)
  np.testing.assert_array_equal(np.asarray(encode(x)), want)


@pytest.mark.parametrize('name', CASES)
def test_every_code_and_every_edge(name):
  fmt, oracle = formats.get(name), CASES[name]()
  assert fmt.name == name
  check(fmt.encode, fmt.decode, fmt, oracle)
  np.testing.assert_array_equal(fmt.values(), oracle.values.astype(np.float32))
  x = oracle.probes()
  np.testing.assert_array_equal(fmt.round(x), fmt.decode(fmt.encode(x)))


# XLA rewrites arithmetic: one of each family compiled here, the rest below.
COMPILED = (
  'int5f',
  'uint3',
  'fixed9_20',
  'e3m0_bias4',
  'e3m2_bias33',
  'e5m2_bias77',
  'e7m8ieee_bias121',
  'e3m10_bias100',
  'e4m3fnuz_bias-20',
  'posit7_4',
  'dint5',
  'halving6',
)


def check_compiled(name):
  fmt, oracle = formats.get(name), CASES[name]()
  encode = jax.jit(lambda x: fmt.encode(x))
  decode = jax.jit(lambda codes: fmt.decode(codes))
  check(
    lambda x: encode(jnp.asarray(x)),
    lambda codes: decode(jnp.asarray(codes)),
    fmt,
    oracle,
  )


@pytest.mark.parametrize('name', COMPILED)
def test_compiled(name):
  check_compiled(name)


@pytest.mark.slow
@pytest.mark.parametrize('name', [n for n in CASES if n not in COMPILED])
def test_all_compiled(name):
  check_compiled(name)


def test_members_of_bitmod():
  magnitudes = {3: (0, 1, 2, 4), 4: (0, 1, 2, 3, 4, 6, 8, 12)}
  specials = {3: (3, -3, 6, -6), 4: (10, -10, 16, -16)}
  for bits in (3, 4):
    members = formats.get(f'bitmod{bits}').members
    for member, special in zip(members, specials[bits], strict=True):
      oracle = table(np.sort([*signed(magnitudes[bits]), special]))
      check(member.encode, member.decode, member, oracle)


@pytest.mark.parametrize('bits', [2, 3, 4, 6, 8])
@pytest.mark.parametrize('eta', [1, 5, 30, 50, 200, 1000])
def test_sulq(bits, eta):
  """Codes of one value are merged: compared by value."""
  fmt = formats.get(f'sulq{bits}_{eta}')
  low, high = np.log2(eta / 1000), np.log2(1 + eta / 1000)
  step = (high - low) / (2**bits - 1)
  u = np.arange(2**bits)
  edges = (2.0 ** ((u[:-1] + 0.5) * step + low) - eta / 1000).astype(np.float32)
  x = np.concatenate([edges, np.linspace(0, 1, 999, dtype=np.float32)])
  x = np.concatenate([x, *(np.nextafter(x, np.float32(d)) for d in (-9, 9))])
  x = np.clip(x, 0, 1).astype(np.float64)
  code = np.round((np.log2(x + eta / 1000) - low) / step)
  want = 2.0 ** np.round(np.clip(code, 0, 2**bits - 1) * step + low)
  got = fmt.round(x.astype(np.float32))
  np.testing.assert_array_equal(got, (want - eta / 1000).astype(np.float32))


@pytest.mark.parametrize('name', ['fp16', 'bf16'])
def test_16_bit_floats_are_the_casts_of_ml_dtypes(name):
  fmt, oracle = formats.get(name), CASES[name]()
  dtype = {'fp16': np.float16, 'bf16': ml_dtypes.bfloat16}[name]
  x = oracle.probes()
  x = x[np.abs(x) <= fmt.max]
  np.testing.assert_array_equal(fmt.encode(x), x.astype(dtype).view(np.uint16))
  codes = np.arange(2**16).astype(np.uint16)
  np.testing.assert_array_equal(
    fmt.decode(codes), codes.view(dtype).astype(np.float32)
  )
