"""Formats that cannot exist, and what their errors say.

Each error names what came and the rule; `names_test.py` has the names of each
family that are out of range.
"""

import re

import ml_dtypes
import numpy as np
import pytest

from lowbit import formats


@pytest.mark.parametrize(
  'name, rule',
  [
    ('uint0', '1..16, got 0'),
    ('int999999999999999999999', '1..16'),
    ('e0m3', '1..8 exponent bits'),
    ('e4m11', '0..10 mantissa bits'),
    ('e8m8', 'at most 16 bits'),
    ('e1m3ieee', "no codes to spare for specials='ieee'"),
    ('e4m0fn', 'no codes to spare'),
    ('e4m3_bias-200', 'leaves the range of float32'),
    ('e8m7finite', 'leaves the range of float32'),
    ('posit0_0', '3..16 bits'),
    ('posit2_0', '3..16 bits'),
    ('posit4_4', 'no room for its exponent'),  # es >= n.
    ('posit8_8', 'es in 0..4'),
    ('posit16_4', 'leaves the range of float32'),
    ('nf0', '2..8, got 0'),
    ('nf1', '2..8, got 1'),
    ('nf10000000', '2..8, got 10000000'),
    ('fixed0_0', 'a word of 2..16 bits'),
    ('fixed17_3', 'got <17, 3>'),
    ('fixed8_99', '-60..60 bits behind the point'),
    ('fixed8_-99', '-60..60 bits behind the point'),
    ('int1f', 'at least 2 bits'),
    ('shift1', '2..8, got 1'),
    ('ulog0', '1..6, got 0'),
    ('halving7', '1..6, got 7'),
    ('power1_65', '2..8, got 1'),
    ('afpq_int0', '1..16, got 0'),
    ('afpq_afpq_nf4', 'without side data'),
    ('afpq_bitmod4', 'without side data'),
    ('afpq_fp32', 'at most 16 bits'),
    ('afpq_uint4', 'both signs'),
    ('afpq_e8m0', 'both signs'),
  ],
)
def test_what_cannot_be_says_why(name, rule):
  with pytest.raises(ValueError, match=re.escape(rule)):
    formats.get(name)


@pytest.mark.parametrize(
  'name, hint',
  [
    ('INT4', 'Did you mean int4'),
    ('E2M1', 'Did you mean e2m1'),
    (' int4', 'Did you mean int4'),
    ('int 4', 'Did you mean int4'),
    ('int4\n', 'Did you mean int4'),
    ('int-4', 'Did you mean int4'),
    ('e-2m1', 'Formats are written'),
    ('fixed-8_4', 'Did you mean fixed8_4'),
    ('int4.0', 'Did you mean int4'),
    ('int04', 'Did you mean int4'),  # One name for one value.
    ('int٤', 'Formats are written'),  # A digit, but not ours.
    ('posit8', 'Did you mean posit8'),
    ('e4m3_overflow_overflow', 'Formats are written'),
    ('', 'Formats are written'),
    ('fp8', 'e4m3 or e5m2'),
    ('float32', 'Here it is fp32'),
    ('mxfp4', 'looks like a spec'),
    ('int4@g64', 'looks like a spec'),
  ],
)
def test_misspelt_names_are_told_what_is_meant(name, hint):
  with pytest.raises(ValueError, match=re.escape(hint)) as error:
    formats.get(name)
  assert repr(name) in str(error.value)


@pytest.mark.parametrize('name', [4, None, 3.5, b'int4', ['int4']])
def test_a_name_is_a_string(name):
  with pytest.raises(TypeError, match='string or a Format, got'):
    formats.get(name)


@pytest.mark.parametrize(
  'build',
  [
    lambda: formats.Integer(4.5),
    lambda: formats.Integer('4'),
    lambda: formats.Integer(True),
    lambda: formats.Minifloat(4.0, 3),
    lambda: formats.Minifloat(4, 3, bias=1.5),
    lambda: formats.Posit(8.0, 1),
    lambda: formats.DInt(4.0),
    lambda: formats.FixedPoint(8, 1.5),
    lambda: formats.nf(4.5),
    lambda: formats.Table('x', 1.0, (0.0, 1.0)),
  ],
)
def test_widths_are_whole_numbers(build):
  with pytest.raises(TypeError, match='must be a whole number, got'):
    build()


@pytest.mark.parametrize(
  'build, rule',
  [
    (lambda: formats.Integer(-3), 'got -3'),
    (lambda: formats.Minifloat(-1, 3), 'got e-1m3'),
    (lambda: formats.Minifloat(4, 3, 'wat'), "got 'wat'"),
    (lambda: formats.nf(-4), 'got -4'),
    (lambda: formats.Table('x', 0, (0.0, 1.0)), '1..16, got 0'),
    (lambda: formats.Table('x', -2, (0.0, 1.0)), '1..16, got -2'),
    (lambda: formats.Table('x', 17, (0.0, 1.0)), '1..16, got 17'),
    (lambda: formats.Table('x', 4, ()), '2 to 16 values'),
    (lambda: formats.Table('x', 4, ((0.0, 1.0),)), '2 to 16 values'),
    (lambda: formats.Table('x', 4, (0.0, 0.0)), 'strictly ascending'),
    (lambda: formats.Table('x', 4, (0.0, np.nan)), 'finite'),
    (lambda: formats.Table('x', 4, (0.0, 1e39)), 'finite'),
    (lambda: formats.Choice('x', ()), 'two formats or more'),
    (
      lambda: formats.Choice('x', (formats.get('int4'), formats.get('int3'))),
      'one width',
    ),
  ],
)
def test_formats_by_hand_that_cannot_be(build, rule):
  with pytest.raises(ValueError, match=re.escape(rule)):
    build()


FAMILIES = [
  'int4',
  'int1',
  'uint4',
  'e2m1',
  'e4m3',
  'e8m0',
  'posit8_1',
  'dint4',
  'nf4',
  'fixed8_4',
  'fp32',
]


@pytest.mark.parametrize('name', FAMILIES)
@pytest.mark.parametrize(
  'x',
  [
    np.arange(3),
    np.ones(3, bool),
    np.ones(3, np.complex64),
    np.ones(3, ml_dtypes.int4),
    np.asarray(['1']),
    [1.0, 2.0],
    1.0,
    None,
  ],
  ids=lambda x: str(getattr(x, 'dtype', type(x).__name__)),
)
def test_only_arrays_of_floats_are_encoded(name, x):
  with pytest.raises(TypeError, match='got .*Convert it'):
    formats.get(name).encode(x)


@pytest.mark.parametrize('name', FAMILIES)
def test_empty_and_0d_arrays_keep_their_shape(name):
  fmt = formats.get(name)
  for shape in ((0,), (0, 3), ()):
    x = np.ones(shape, np.float32)
    codes = fmt.encode(x)
    assert np.shape(codes) == np.shape(fmt.decode(codes)) == shape
    assert np.shape(fmt.round(x)) == shape
    assert fmt.round(x).dtype == np.float32


@pytest.mark.parametrize('name', [n for n in FAMILIES if n != 'fp32'])
def test_rounding_modes_and_noise_must_fit(name):
  fmt, x = formats.get(name), np.ones(3, np.float32)
  with pytest.raises(ValueError, match='`rounding` must be one of'):
    fmt.encode(x, 'nearest-even')
  with pytest.raises(ValueError, match='`noise` goes with'):
    fmt.encode(x, 'stochastic')
  with pytest.raises(ValueError, match='`noise` goes with'):
    fmt.encode(x, 'nearest', x)


@pytest.mark.parametrize(
  'name, above, inf',
  [
    ('e4m3_overflow', np.nan, np.nan),  # No infinity to go to.
    ('e4m3fnuz_overflow', np.nan, np.nan),
    ('e5m2_overflow', np.inf, np.inf),
    ('fp16_overflow', np.inf, np.inf),
    ('e2m1_overflow', 6.0, 6.0),  # Neither: it saturates all the same.
    ('e4m3', 448.0, 448.0),
    ('e5m2', 57344.0, 57344.0),
  ],
)
def test_values_outside_with_saturation_switched_off(name, above, inf):
  fmt = formats.get(name)
  assert fmt.name == name
  x = np.float32([fmt.max, 1.5 * fmt.max, np.inf])
  for signed, sign in ((x, 1), (-x, -1)):
    want = np.float32([fmt.max, above, inf]) * sign
    np.testing.assert_array_equal(fmt.round(signed), want)
    np.testing.assert_array_equal(fmt.decode(fmt.encode(signed)), want)
