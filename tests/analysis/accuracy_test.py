"""Formats in numbers, against values worked out by hand and by brute force."""

import math

import numpy as np
import pytest

from lowbit import formats
from lowbit.analysis import accuracy

NAMES = [
  n
  for n in formats.names()
  if formats.get(n).bits <= 8 and n not in ('int1', 'e8m0')
]


def test_e2m1_by_hand():
  row = accuracy.summary('e2m1')
  assert (row.values, row.max, row.smallest, row.target) == (15, 6.0, 0.5, 6.0)
  assert row.decades == math.log10(12)
  # Between 1/2 and 1 the worst number is 3/4: a factor of 3/2 from 1/2.
  assert row.least == pytest.approx(-math.log10(math.log10(1.5)))
  # Between 3/2 and 2: 7/4, a factor of 7/6 from 3/2.
  assert row.most == pytest.approx(-math.log10(math.log10(7 / 6)))
  codes = accuracy.code_table('e2m1')
  assert [c[0] for c in codes] == [f'{i:04b}' for i in range(16)]
  assert [c[1] for c in codes[:8]] == [0, 0.5, 1, 1.5, 2, 3, 4, 6]
  np.testing.assert_equal(
    [c[2] for c in codes[:8]], [0.5] * 4 + [1, 1, 2, np.nan]
  )
  # Sign and magnitude: -3 is followed by -2, as 2 is by 3.
  assert codes[13][1:3] == (-3, 1)
  assert codes[13][3] == codes[4][3]


@pytest.mark.parametrize(
  'name, least',
  [('int4', -math.inf), ('int1', -math.log10(math.log10(16))), ('fp16', 3.674)],
)
def test_the_worst_of_a_block(name, least):
  # 7 / 16 rounds to 0 in int4, and 1 / 16 to 1 in int1.
  assert accuracy.summary(name).least == pytest.approx(least, abs=1e-3)


@pytest.mark.parametrize('name', NAMES)
@pytest.mark.parametrize('sign', [1, -1])
def test_decimals_are_those_of_the_worst_number_between(name, sign):
  edges, decimals = accuracy.guaranteed_decimals(name, sign)
  fmt = formats.get(name)
  rng = np.random.default_rng(0)
  for low, high, promised in list(zip(edges, edges[1:], decimals))[::7]:
    x = rng.uniform(low, high, 300).astype(np.float32)
    y = np.abs(fmt.round(np.float32(sign) * x)).astype(np.float64)
    found = -np.log10(np.maximum(np.abs(np.log10(y / x)), 2.0**-24))
    assert found.min() >= promised - 1e-9
    # The worst of 300 numbers comes close to the worst of all.
    assert found.min() < promised + 0.1


@pytest.mark.parametrize('name', ['fp16', 'bf16', 'posit16_1', 'int16', 'e8m0'])
def test_wide_formats(name):
  row = accuracy.summary(name)
  assert row.values > 250
  assert math.isfinite(row.least)
  assert row.most >= row.least
  edges, decimals = accuracy.guaranteed_decimals(name)
  assert len(decimals) == len(edges) - 1
  assert np.isfinite(decimals).all()
  assert edges[0] >= 2.0**-126


def test_posits_taper():
  edges, decimals = accuracy.guaranteed_decimals('posit8_1')
  near = lambda x: decimals[np.searchsorted(edges, x, 'right') - 1]
  assert near(1.0) > near(16.0) > near(300.0) > near(2000.0)


@pytest.mark.parametrize('name', NAMES)
def test_every_code_is_in_the_table(name):
  fmt = formats.get(name)
  rows = accuracy.code_table(name)
  patterns = [row[0] for row in rows]
  assert len(set(patterns)) == len(rows) == len(fmt.codes())
  assert {len(p) for p in patterns} == {fmt.bits}
  values = [row[1] for row in rows]
  np.testing.assert_array_equal(values, np.float64(fmt.decode(fmt.codes())))
  sides = [accuracy.guaranteed_decimals(name, sign)[1] for sign in (1, -1)]
  known = {*sides[0].tolist(), *sides[1].tolist()}
  for _, value, gap, decimals in rows:
    assert np.isnan(gap) or value + gap in fmt.values()
    assert np.isnan(decimals) or decimals in known


def test_a_sign_alone_is_one_bit():
  assert [row[:2] for row in accuracy.code_table('int1')] == [
    ('0', -1.0),
    ('1', 1.0),
  ]


def test_side_data_has_members_and_no_codes():
  row = accuracy.summary('bitmod4')
  assert row.target == 16
  assert math.isnan(row.least)
  assert accuracy.summary('afpq_nf4').target == 1
  with pytest.raises(TypeError, match='Show its members'):
    accuracy.code_table('bitmod4')
  with pytest.raises(ValueError, match='16 bits'):
    accuracy.summary('fp32')


def test_decimal_accuracy_of_single_numbers():
  got = accuracy.decimal_accuracy('e2m1', [0.75, 1.0, 0.1, 6.6])
  want = [-math.log10(math.log10(1 / 0.75)), 7.2247, -np.inf]
  np.testing.assert_allclose(got[:3], want, rtol=1e-4)
  assert got[3] == pytest.approx(-math.log10(math.log10(6.6 / 6)), rel=1e-5)
