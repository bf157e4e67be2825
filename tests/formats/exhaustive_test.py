"""Every code, every tie and its neighbours, against independent oracles."""

import fractions
import math

import gfloat
import hypothesis
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import softposit
from hypothesis import strategies as st

from lowbit import formats

SMALL = [n for n in formats.names() if formats.get(n).bits <= 8 and n != 'e8m0']
WIDE = ['fp16', 'bf16', 'e8m3ieee', 'posit16_1', 'int16']
MINIFLOATS = [n for n in SMALL if isinstance(formats.get(n), formats.Minifloat)]
TYPED = [n for n in MINIFLOATS if formats.get(n).dtype is not None]
POSITS = [n for n in SMALL if n.startswith('posit')]


def probes(fmt):
  """Values, ties, their float32 neighbours, overflow and specials."""
  values = fmt.values()
  ties = (values[1:] + values[:-1]) / 2
  points = np.concatenate([values, ties]).astype(np.float32)
  near = [
    points,
    np.nextafter(points, np.float32(-np.inf)),
    np.nextafter(points, np.float32(np.inf)),
  ]
  with np.errstate(over='ignore'):
    big = np.float32([1.01, 1.5, 2, 100]) * np.float32(fmt.max)
  tiny = np.float32([1e-30, -1e-30, 0.0, -0.0])
  x = np.concatenate([*near, big, -big, tiny])
  # float32 subnormals are flushed by XLA: below its range by design.
  return x[(np.abs(x) >= 2.0**-126) | (x == 0)]


# Nearest in another domain than the value: where, and its own oracle below.
WARPED = ('log', 'ulog', 'power', 'sulq', 'halving')
LINEAR = [n for n in SMALL if not n.startswith(WARPED)]


@pytest.mark.parametrize('name', LINEAR)
def test_round_is_nearest(name):
  fmt = formats.get(name)
  if isinstance(fmt, formats.Posit):
    return posit_is_nearest_on_the_bit_string(fmt)
  x = probes(fmt)
  values = fmt.values()
  got = np.asarray(fmt.round(x), np.float64)
  assert np.isin(got, values).all()
  inside = np.clip(x.astype(np.float64), values[0], values[-1])
  best = np.min(np.abs(values[None] - inside[:, None]), axis=1)
  np.testing.assert_array_equal(np.abs(got - inside), best)


def warped_reference(name, x):
  """Written from the papers' formulas, in float64."""
  if name == 'log4':
    p = np.clip(np.round(np.log2(np.maximum(np.abs(x), 1e-30))), 0, 7)
    return np.where(x < 0, -1, 1) * 2.0**p
  if name == 'ulog4':
    return 2.0 ** np.clip(np.round(np.log2(np.maximum(x, 1e-30))), -15, 0)
  if name == 'power4_65':
    y = np.abs(np.clip(x, -1, 1)) ** 0.65
    return np.sign(x) * (np.round(y * 7) / 7) ** (1 / 0.65)
  low, high = np.log2(0.05), np.log2(1.05)  # sulq4_50.
  step = (high - low) / 15
  u = np.round((np.log2(np.clip(x, 0, 1) + 0.05) - low) / step)
  return 2.0 ** np.round(u * step + low) - 0.05


@pytest.mark.parametrize('name', ['log4', 'ulog4', 'power4_65', 'sulq4_50'])
def test_formats_that_round_in_another_domain(name):
  fmt = formats.get(name)
  rng = np.random.default_rng(5)
  x = rng.standard_normal(20_000).astype(np.float32) * np.float32(fmt.max / 2)
  x = x if fmt.values()[0] < 0 else np.abs(x)
  want = warped_reference(name, x.astype(np.float64))
  np.testing.assert_allclose(fmt.round(x), want, rtol=1e-5, atol=1e-7)


def test_the_printed_codebooks():
  values = lambda name: formats.get(name).values().tolist()
  both = lambda *v: [-x for x in reversed(v)] + [0.0, *v]
  assert values('bnbfp4') == both(0.0625, 2, 3, 4, 6, 8, 12)
  assert values('flint4') == both(1, 2, 3, 4, 6, 8, 16)
  assert values('flint5') == both(
    1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 24, 32, 64
  )
  assert values('shift2') == [-2, -1, 1, 2]
  nf3 = (-1, -0.4786292, -0.2171418, 0, 0.1609302, 0.3379152, 0.562617, 1)
  np.testing.assert_allclose(values('nf3'), nf3, atol=1e-6)
  np.testing.assert_allclose(values('nf2'), (-1, 0, 0.3379152, 1), atol=1e-6)
  signed, unsigned = values('dynamic8'), values('udynamic8')
  assert len(signed) == len(unsigned) == 256
  np.testing.assert_allclose(signed[0], -0.99296875, rtol=1e-7)
  np.testing.assert_allclose(min(v for v in signed if v > 0), 5.5e-7)
  np.testing.assert_allclose(unsigned[:3], (0, 3.25e-7, 7.75e-7), rtol=1e-6)
  np.testing.assert_allclose(unsigned[-2:], (0.9964844, 1), rtol=1e-6)
  published = [0.0044, 0.04, 0.1111, 0.2178, 0.36, 0.5378, 0.7511, 1]
  linear2 = [-1, *(-v for v in published[-2:0:-1]), 0, *published]
  np.testing.assert_allclose(values('linear2_4'), linear2, atol=5e-5)
  np.testing.assert_allclose(
    values('linear2_3'),
    (-1, -0.5102, -0.1837, 0, 0.0204, 0.1837, 0.5102, 1),
    atol=5e-5,
  )
  assert values('linear0_4') == [k / 16 for k in range(1, 17)]
  tree = [0.0055, 0.0325, 0.0775, 0.2125, 0.4375, 0.6625, 0.8875]
  want = [*(-v for v in tree[::-1]), 0, *tree, 1]
  np.testing.assert_allclose(values('dynamic4'), want, rtol=1e-6)
  np.testing.assert_allclose(
    values('dynamic3'),
    (-0.775, -0.325, -0.055, 0, 0.055, 0.325, 0.775, 1),
    rtol=1e-6,
  )
  ninths = [0.15625, 0.26875, 0.38125, 0.49375, 0.60625, 0.71875, 0.83125]
  tree = [0.00325, 0.00775, 0.02125, 0.04375, 0.06625, 0.08875, *ninths]
  np.testing.assert_allclose(values('de0_4'), [*tree, 0.94375, 1], rtol=1e-6)


@pytest.mark.parametrize('name', ['dynamic8', 'udynamic8', 'log8', 'sulq8_50'])
@pytest.mark.parametrize('rounding', ['nearest', 'floor'])
def test_large_tables_find_the_code_of_every_float(name, rounding):
  fmt = formats.get(name)
  edges = fmt._edges(rounding)
  near = [np.nextafter(edges, np.float32(s)) for s in (-np.inf, np.inf)]
  random = np.random.default_rng(0).standard_normal(20_000).astype(np.float32)
  x = np.concatenate([edges, *near, random, random**9, np.float32([0.0, -0.0])])
  x = x[(np.abs(x) >= 2.0**-126) | (x == 0)]
  want = np.searchsorted(edges, x, side='right')
  np.testing.assert_array_equal(fmt.encode(x, rounding), want)
  np.testing.assert_array_equal(fmt.encode(jnp.asarray(x), rounding), want)


def test_fixed_point_is_an_integer_with_a_point():
  fmt = formats.get('fixed8_4')
  x = np.linspace(-9, 9, 1001).astype(np.float32)
  want = np.clip(np.round(x.astype(np.float64) * 16), -128, 127) / 16
  np.testing.assert_array_equal(fmt.round(x), want.astype(np.float32))
  wide = formats.get('fixed8_-2')
  assert (wide.values()[0], wide.values()[-1]) == (-512, 508)


def posit_is_nearest_on_the_bit_string(fmt):
  x = probes(fmt)
  want = np.array([reference_posit(float(v), fmt.bits, fmt.es) for v in x])
  np.testing.assert_array_equal(fmt.encode(x), want)


def reference_posit(x, n, es):
  """Posit of a number by its exact bit string, with fractions."""
  if x == 0:
    return 0
  value = abs(fractions.Fraction(x))
  value = min(value, fractions.Fraction(2) ** ((n - 2) * 2**es))
  value = max(value, fractions.Fraction(1, 2 ** ((n - 2) * 2**es)))
  exponent = math.floor(math.log2(value))
  exponent += (value >= fractions.Fraction(2) ** (exponent + 1)) - (
    value < fractions.Fraction(2) ** exponent
  )
  fraction = value / fractions.Fraction(2) ** exponent - 1
  regime, low = exponent >> es, exponent & (2**es - 1)
  bits = '1' * (regime + 1) + '0' if regime >= 0 else '0' * -regime + '1'
  bits += format(low, f'0{es}b') if es else ''
  for _ in range(60):
    fraction *= 2
    bits += str(int(fraction >= 1))
    fraction -= fraction >= 1
  body, rest = int(bits[: n - 1], 2), bits[n - 1 :]
  half = rest[0] == '1'
  if half and ('1' in rest[1:] or fraction or body % 2):
    body += 1
  body = min(max(body, 1), 2 ** (n - 1) - 1)
  return body if x > 0 else 2**n - body


@pytest.mark.parametrize('name', SMALL + WIDE)
def test_numpy_equals_jax(name):
  fmt = formats.get(name)
  x = np.concatenate([probes(fmt), np.float32([np.inf, -np.inf, np.nan])])
  codes = jax.jit(fmt.encode)(jnp.asarray(x))
  np.testing.assert_array_equal(np.asarray(codes), fmt.encode(x))
  got = jax.jit(fmt.round)(jnp.asarray(x))
  np.testing.assert_array_equal(np.asarray(got), fmt.round(x))
  values = np.asarray(jax.jit(fmt.decode)(jnp.asarray(fmt.codes())))
  want = fmt.decode(fmt.codes())
  flushed = (want != 0) & (np.abs(want) < 2.0**-126)  # bf16 alone.
  np.testing.assert_array_equal(values[~flushed], want[~flushed])
  np.testing.assert_array_equal(values[flushed], 0)


@pytest.mark.parametrize('name', [*SMALL, *WIDE, 'e8m0'])
@pytest.mark.parametrize('array', [np.asarray, jnp.asarray])
def test_nan_and_infinities_round_to_what_their_codes_mean(name, array):
  fmt = formats.get(name)
  x = array(np.float32([np.nan, np.inf, -np.inf]))
  np.testing.assert_array_equal(fmt.round(x), fmt.decode(fmt.encode(x)))


@pytest.mark.parametrize('name', SMALL)
def test_every_code_comes_back(name):
  fmt = formats.get(name)
  codes = fmt.codes()
  values = fmt.decode(codes)
  again = fmt.decode(fmt.encode(values))
  finite = np.isfinite(values)
  np.testing.assert_array_equal(again[finite], values[finite])
  x = probes(fmt)
  np.testing.assert_array_equal(fmt.decode(fmt.encode(x)), fmt.round(x))


@pytest.mark.parametrize('name', TYPED)
def test_minifloat_equals_ml_dtypes(name):
  fmt = formats.get(name)
  values = fmt.codes().view(fmt.dtype).astype(np.float32)
  np.testing.assert_array_equal(fmt.decode(fmt.codes()), values)
  x = probes(fmt)
  x = np.clip(x, -fmt.max, fmt.max)
  want = x.astype(fmt.dtype).view(np.uint8)
  np.testing.assert_array_equal(fmt.encode(x), want)


@pytest.mark.parametrize('name', ['e4m3', 'e5m2', 'e4m3fnuz', 'e4m3ieee'])
def test_overflow_without_saturation_equals_ml_dtypes(name):
  fmt = formats.get(f'{name}_overflow')
  x = np.concatenate([probes(fmt), np.float32([np.inf, -np.inf, np.nan])])
  with np.errstate(all='ignore'):
    want = x.astype(fmt.dtype).astype(np.float32)
  np.testing.assert_array_equal(fmt.decode(fmt.encode(x)), want)


@pytest.mark.parametrize('name', MINIFLOATS)
def test_minifloat_equals_gfloat(name):
  fmt = formats.get(name)
  if fmt.specials == 'fn' and name != 'e4m3':
    raise AssertionError('Describe it to gfloat first.')
  kinds = {
    'finite': {'has_infs': False, 'num_high_nans': 0, 'has_nz': True},
    'ieee': {
      'has_infs': True,
      'num_high_nans': 2**fmt.mantissa - 1,
      'has_nz': True,
    },
    'fn': {'has_infs': False, 'num_high_nans': 1, 'has_nz': True},
    'fnuz': {'has_infs': False, 'num_high_nans': 0, 'has_nz': False},
  }
  kind = kinds[fmt.specials]
  info = gfloat.FormatInfo(
    name=name,
    k=fmt.bits,
    precision=fmt.mantissa + 1,
    bias=fmt.bias,
    is_signed=True,
    has_subnormals=True,
    domain=gfloat.Domain.Extended if kind['has_infs'] else gfloat.Domain.Finite,
    num_high_nans=kind['num_high_nans'],
    has_nz=kind['has_nz'],
    is_twos_complement=False,
  )
  want = [gfloat.decode_float(info, int(c)).fval for c in fmt.codes()]
  np.testing.assert_array_equal(fmt.decode(fmt.codes()), np.float32(want))
  x = probes(fmt)
  want = [gfloat.round_float(info, float(v), sat=True) for v in x]
  np.testing.assert_array_equal(fmt.round(x), np.float32(want))


def test_posit8_0_and_16_1_equal_softposit():
  for name, kind in (
    ('posit8_0', softposit.posit8),
    ('posit16_1', softposit.posit16),
  ):
    fmt = formats.get(name)
    x = np.random.default_rng(0).standard_t(2, 2000).astype(np.float32)
    x = np.concatenate([x, x * 1e4, x * 1e-4, fmt.values().astype(np.float32)])
    want = np.float32([float(kind(float(v))) for v in x])
    np.testing.assert_array_equal(fmt.round(x), want)


@pytest.mark.parametrize('name', ['fp16', 'bf16', 'posit16_1', 'int16'])
def test_16_bits_come_back(name):
  fmt = formats.get(name)
  values = fmt.decode(fmt.codes())
  usable = np.isfinite(values) & ((np.abs(values) >= 2.0**-126) | (values == 0))
  again = fmt.decode(fmt.encode(values[usable]))
  np.testing.assert_array_equal(again, values[usable])
  ties = fmt.values()
  ties = ((ties[1:] + ties[:-1]) / 2)[::97].astype(np.float32)
  ties = ties[np.abs(ties) >= 2.0**-126]
  if fmt.dtype is not None and name != 'int16':
    np.testing.assert_array_equal(
      fmt.round(ties), ties.astype(fmt.dtype).astype(np.float32)
    )


def test_e8m0_equals_ml_dtypes():
  fmt = formats.get('e8m0')
  codes = np.arange(256).astype(np.uint8)
  want = codes.view(ml_dtypes.float8_e8m0fnu).astype(np.float32)
  np.testing.assert_array_equal(fmt.decode(codes), want)
  powers = np.float32(2.0) ** np.arange(-126, 127).astype(np.float32)
  x = np.concatenate([powers, powers * 1.25, powers * 1.5, powers * 1.75])
  want = x.astype(ml_dtypes.float8_e8m0fnu).view(np.uint8)
  np.testing.assert_array_equal(fmt.encode(x), want)
  assert fmt.encode(np.float32([np.nan, np.inf])).tolist() == [255, 255]


def test_nan_and_infinity_are_defined():
  special = np.float32([np.nan, np.inf, -np.inf])
  for name in SMALL:
    fmt = formats.get(name)
    got = fmt.decode(fmt.encode(special))
    if isinstance(fmt, formats.Posit):
      assert np.isnan(got).all()
      continue
    has_nan = np.isnan(fmt.decode(fmt.codes())).any()
    assert np.isnan(got[0]) == has_nan, name
    top = fmt.values()
    np.testing.assert_array_equal(got[1:], [top[-1], top[0]], err_msg=name)


def test_nf4_is_the_published_table():
  published = [
    -1.0,
    -0.6961928009986877,
    -0.5250730514526367,
    -0.39491748809814453,
    -0.28444138169288635,
    -0.18477343022823334,
    -0.09105003625154495,
    0.0,
    0.07958029955625534,
    0.16093020141124725,
    0.24611230194568634,
    0.33791524171829224,
    0.44070982933044434,
    0.5626170039176941,
    0.7229568362236023,
    1.0,
  ]
  np.testing.assert_allclose(formats.get('nf4').values(), published, atol=4e-7)


def test_dint4_values_and_thresholds():
  fmt = formats.get('dint4')
  want = [-6, -5, -4, -3, -2, -1, -0.5, 0, 0.5, 1, 2, 3, 4, 5, 6]
  assert fmt.values().tolist() == want
  x = np.float32([0.25, 0.26, 0.74, 0.75, -0.3, 9])
  assert fmt.round(x).tolist() == [0, 0.5, 0.5, 1, -0.5, 6]
  assert (2 * fmt.values() == np.round(2 * fmt.values())).all()


@pytest.mark.parametrize('name', SMALL)
@pytest.mark.parametrize('rounding', ['floor', 'away'])
def test_directed_rounding(name, rounding):
  fmt = formats.get(name)
  if name.startswith(('posit', *WARPED)) and rounding == 'away':
    return  # Nearest in another domain than the value.
  values = fmt.values()
  x = np.random.default_rng(1).uniform(values[0], values[-1], 500)
  x = x.astype(np.float32)
  x = x[np.abs(x) > np.min(np.abs(values[values != 0]))]  # Posits avoid 0.
  got = np.asarray(fmt.round(x, rounding), np.float64)
  low = values[np.searchsorted(values, x.astype(np.float64), 'right') - 1]
  if rounding == 'floor':
    np.testing.assert_array_equal(got, low)
  else:
    best = np.min(np.abs(values[None] - x[:, None].astype(np.float64)), axis=1)
    np.testing.assert_array_equal(np.abs(got - x.astype(np.float64)), best)


GRIDS = [n for n in formats.names() if n != 'fp32' and formats.get(n).grid]


def test_traced_grid_equals_every_format_in_one_program():
  x = np.random.default_rng(3).standard_t(3, 4000).astype(np.float32) * 3
  traced = jax.jit(formats.round_to_float_grid)
  for name in GRIDS:
    fmt = formats.get(name)
    grid = fmt.grid
    if grid.min != -grid.max:  # A sweep's, in tests/quantize/sweep_test.py.
      continue
    got = traced(
      jnp.asarray(x),
      jnp.int32(grid.mantissa_bits),
      jnp.int32(grid.min_exponent),
      jnp.float32(grid.max),
    )
    np.testing.assert_array_equal(np.asarray(got), fmt.round(x), err_msg=name)
  assert traced._cache_size() == 1


@hypothesis.given(
  st.lists(st.floats(-1e4, 1e4, width=32), min_size=2, max_size=50),
  st.sampled_from(SMALL),
)
@hypothesis.settings(deadline=None, max_examples=200)
def test_rounding_is_a_monotone_projection(numbers, name):
  fmt = formats.get(name)
  x = np.sort(np.float32([0.0 if abs(v) < 1e-30 else v for v in numbers]))
  y = fmt.round(x)
  np.testing.assert_array_equal(fmt.round(y), y)
  assert (np.diff(y) >= 0).all()
  values = fmt.values()
  if (
    name != 'int1'
    and not name.startswith(('nf', 'shift', 'log'))
    and (values == -values[::-1]).all()
  ):
    np.testing.assert_array_equal(fmt.round(-x), -y)
