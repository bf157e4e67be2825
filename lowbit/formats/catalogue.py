"""The codebooks of the literature, each as a `Table`.

All are written in the units of their papers; a scale maps a block on them.
"""

import math
import statistics

import numpy as np

from lowbit.formats import base, table
from lowbit.formats import dynamic as dynamic_lib


def _check(name: str, value: int, low: int, high: int) -> None:
  base.check_whole(**{name.replace('`', ''): value})
  if not low <= value <= high:
    raise ValueError(f'{name} must lie in {low}..{high}, got {value}.')


def _signed(magnitudes) -> tuple[float, ...]:
  """-m, ..., m ascending; zero appears once."""
  both = {s * float(m) + 0.0 for m in magnitudes for s in (-1.0, 1.0)}
  return tuple(sorted(both))


def nf(bits: int) -> table.Table:
  """NormalFloat of 2 to 8 bits: quantiles of N(0, 1), scaled to [-1, 1].

  2^(b-1) points on the negative side (0 among them) and 2^(b-1) + 1 on the
  positive, between 1/2 and delta = 1 - (1/30 + 1/32)/2. Dettmers et al.,
  QLoRA, 2023 (arXiv:2305.14314), whose 16 constants this reproduces to 4e-7.
  """
  _check('`bits` of NF', bits, 2, 8)
  delta = 1 - (1 / 32 + 1 / 30) / 2
  inverse = statistics.NormalDist().inv_cdf
  side = lambda n: [inverse(p) for p in np.linspace(delta, 0.5, n)[:-1]]
  negative = [-v for v in side(2 ** (bits - 1))]
  positive = side(2 ** (bits - 1) + 1)
  values = np.sort([*negative, 0.0, *positive]) / positive[0]
  return table.Table(f'nf{bits}', bits, tuple(values.tolist()))


def bnb_fp4() -> table.Table:
  """The FP4 of bitsandbytes, which is not E2M1: 1/16 is its subnormal."""
  values = _signed((0, 0.0625, 2, 3, 4, 6, 8, 12))
  return table.Table('bnbfp4', 4, values)


def dynamic(bits: int, signed: bool = True) -> table.Table:
  """Dynamic tree: decades of growing resolution, 0 and +1.

  Decade i = 0..b-2 holds the mid-points of 2^i (unsigned: 2^(i+1)) equal
  parts of [0.1, 1], times 10^(i - b + 2). Dettmers et al., 8-bit Optimizers
  via Block-wise Quantization, 2021 (arXiv:2110.02861).
  """
  _check('`bits` of the dynamic tree', bits, 3, 8)
  values = []
  for i in range(bits - 1):
    edges = np.linspace(0.1, 1, 2 ** (i if signed else i + 1) + 1)
    values += ((edges[1:] + edges[:-1]) / 2 * 10.0 ** (i - bits + 2)).tolist()
  both = [*values, *(-v for v in values)] if signed else values
  name = f'{"" if signed else "u"}dynamic{bits}'
  return dynamic_lib.Dynamic(name, bits, tuple(sorted([*both, 0.0, 1.0])))


def dynamic_without_zero(bits: int) -> table.Table:
  """DE-0: the unsigned dynamic tree, its zero left out: 2^b - 1 values.

  For second moments, whose inverse root a zero would blow up. Li et al., Memory
  Efficient Optimizers with 4-bit States, 2023 (arXiv:2309.01507).
  """
  values = dynamic(bits, signed=False).table[1:]
  return table.Table(f'de0_{bits}', bits, values)


def linear_without_zero(bits: int) -> table.Table:
  """k / 2^b, k = 1..2^b: linear, unsigned, zero excluded (arXiv:2309.01507)."""
  _check('`bits` of linear without zero', bits, 2, 8)
  values = np.arange(1, 2**bits + 1) / 2**bits
  return table.Table(f'linear0_{bits}', bits, tuple(values.tolist()))


def linear_square(bits: int) -> table.Table:
  """Linear-2: sign(x) x^2 of a linear grid x over [-1, 1], with a zero.

  x_j = -1 + 2 j / (2^b - 1), and the x just below zero is set to zero. Wang et
  al., 4-bit Shampoo for Memory-Efficient Network Training, 2024
  (arXiv:2405.18144).
  """
  _check('`bits` of linear-2', bits, 2, 8)
  x = np.linspace(-1, 1, 2**bits)
  x[2 ** (bits - 1) - 1] = 0
  return table.Table(
    f'linear2_{bits}', bits, tuple((np.sign(x) * x**2).tolist())
  )


def flint(bits: int) -> table.Table:
  """flint: mantissa bits grow up to the middle binade, and fall again.

  With n = bits - 1, binade [2^i, 2^(i+1)) has min(i, n - 2, 2n - 3 - i)
  mantissa bits for i < 2n - 2, and 2^(2n-2) ends the list: flint4 is 0, 1, 2,
  3, 4, 6, 8, 16. Guo et al., ANT, 2022 (arXiv:2208.14286).
  """
  _check('`bits` of flint', bits, 3, 8)
  n = bits - 1
  values = [0.0, 2.0 ** (2 * n - 2)]
  for i in range(2 * n - 2):
    m = min(i, n - 2, 2 * n - 3 - i)
    values += [2.0**i * (1 + k / 2**m) for k in range(2**m)]
  return table.Table(f'flint{bits}', bits, _signed(values))


def denormal(exponent: int, mantissa: int) -> table.Table:
  """Floats without the implicit one: +-2^e k / 2^M, k = 0..2^M - 1.

  e = -b..2^E - 1 - b with bias b = 2^(E-1) - 1. Many codes share a value, and
  are one here. The denormalized minifloat of Zhang et al., Revisiting
  Block-based Quantisation, 2023 (arXiv:2310.05079).
  """
  _check('Exponent bits of dmf', exponent, 1, 4)
  _check('Mantissa bits of dmf', mantissa, 1, 6)
  bias = 2 ** (exponent - 1) - 1
  powers = 2.0 ** (np.arange(2**exponent) - bias)
  values = np.outer(powers, np.arange(2**mantissa) / 2**mantissa)
  name, bits = f'dmf{exponent}_{mantissa}', 1 + exponent + mantissa
  return table.Table(name, bits, _signed(values.reshape(-1)))


def shift(bits: int) -> table.Table:
  """+-2^p, p = 0..2^(b-1) - 1, without zero; nearest in value.

  Li et al., DenseShift, 2023 (arXiv:2208.09708).
  """
  _check('`bits` of shift', bits, 2, 8)
  values = _signed(2.0 ** np.arange(2 ** (bits - 1)))
  return table.Table(f'shift{bits}', bits, values)


def log(bits: int) -> table.Table:
  """The values of `shift`, nearest in log2: sign(x) 2^round(log2 |x|).

  The element of block logarithm; Zhang et al., Revisiting Block-based
  Quantisation, 2023 (arXiv:2310.05079).
  """
  values = shift(bits).table
  half = len(values) // 2
  up = [v * math.sqrt(2) for v in values[half:-1]]
  edges = (*(-v for v in reversed(up)), 0.0, *up)
  return table.Table(f'log{bits}', bits, values, edges)


def ulog(bits: int) -> table.Table:
  """2^-p, p = 0..2^b - 1, nearest in log2: for attention maps."""
  _check('`bits` of ulog', bits, 1, 6)
  values = 2.0 ** -np.arange(2**bits)[::-1]
  edges = values[:-1] * math.sqrt(2)
  return table.Table(f'ulog{bits}', bits, tuple(values), tuple(edges))


def halving(bits: int) -> table.Table:
  """2^-k, k = 0..2^b - 1, rounded up: scales that are shifts of the largest.

  As scale format of one row, `(halving4@channel)`, this is the constraint M2 of
  Wu et al., ZeroQuant-FP, 2023 (arXiv:2307.09782), with the shift rounded so
  that no group is clipped.
  """
  _check('`bits` of halving', bits, 1, 6)
  values = 2.0 ** -np.arange(2**bits)[::-1]
  # Half a float32 ulp above each value: no float32 is a tie.
  above = values[:-1] * (1 + 2.0**-24)
  return table.Table(f'halving{bits}', bits, tuple(values), tuple(above))


def power(bits: int, percent: int) -> table.Table:
  """|x|^a rounded uniformly, a = percent / 100: values (i / n)^(1/a).

  n = 2^(b-1) - 1. Powers are the only continuous automorphisms of the positive
  reals under products, so that codes may be multiplied. Yvinec et al., NUPES,
  2023 (arXiv:2308.05600).
  """
  _check('`bits` of power', bits, 2, 8)
  _check('The exponent of power, in percent,', percent, 10, 100)
  n, inverse = 2 ** (bits - 1) - 1, 100 / percent
  up = lambda k: (np.asarray(k) / n) ** inverse
  edges = up(np.arange(n) + 0.5)
  return table.Table(
    f'power{bits}_{percent}',
    bits,
    _signed(up(range(n + 1))),
    (*-edges[::-1], *edges),
  )


def sulq(bits: int, thousandths: int) -> table.Table:
  """Shift-uniform-log2: 2^round(u d + low) - eta, eta = thousandths / 1000.

  u = 0..2^b - 1 is uniform in log2(x + eta) over x in [0, 1]; the inner
  rounding keeps a decoder of shifts, and makes some codes equal: they are one
  value here. Zhong et al., I&S-ViT, 2023 (arXiv:2311.10126).
  """
  _check('`bits` of sulq', bits, 2, 8)
  _check('eta of sulq, in thousandths,', thousandths, 1, 1000)
  eta = thousandths / 1000
  low, high = math.log2(eta), math.log2(1 + eta)
  step = (high - low) / (2**bits - 1)
  code = np.arange(2**bits)
  values = 2.0 ** np.round(code * step + low) - eta
  edges = 2.0 ** ((code[:-1] + 0.5) * step + low) - eta
  new = np.diff(values) > 0
  kept = values[np.concatenate([[True], new])]
  return table.Table(
    f'sulq{bits}_{thousandths}', bits, tuple(kept), tuple(edges[new])
  )
