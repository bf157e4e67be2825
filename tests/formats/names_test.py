import numpy as np
import pytest

from lowbit import formats

SIDE = ('adint4', 'bitmod3', 'bitmod4', 'afpq_e2m1', 'afpq_nf4')


@pytest.mark.parametrize('name', formats.names() + SIDE)
def test_names_parse_and_print(name):
  fmt = formats.get(name)
  assert fmt.name == name
  assert formats.get(fmt) is fmt
  assert hash(fmt) == hash(formats.get(name))


def test_other_names_of_one_value():
  assert formats.get('e4m3fn') == formats.get('e4m3')
  assert formats.get('e5m10ieee') == formats.get('fp16')
  assert formats.get('e4m3ieee') != formats.get('e4m3')
  assert formats.get('e3m2_bias5').name == 'e3m2_bias5'


@pytest.mark.parametrize(
  'name, hint',
  [
    ('int0', '1..16'),
    ('int17', '1..16'),
    ('e0m0', 'exponent'),
    ('e9m1', '1..8 exponent'),
    ('posit8_7', 'es in 0..4'),
    ('posit4_3', 'es'),
    ('nf9', '2..8'),
    ('dint2', '3..8'),
    ('flint9', '3..8'),
    ('dynamic2', '3..8'),
    ('log9', '2..8'),
    ('de0_2', '3..8'),
    ('linear0_9', '2..8'),
    ('linear2_1', '2..8'),
    ('power4_5', '10..100'),
    ('sulq4_0', '1..1000'),
    ('fixed1_0', '2..16'),
    ('bitmod5', '3 or 4'),
    ('adint6', '3..5'),
    ('dmf5_1', '1..4'),
    ('afpq_shift4', 'a zero'),
    ('afpq_afpq_e2m1', 'side data inside'),
    ('afpq_uint4', 'both signs'),
    ('afpq_what', 'Formats are written'),
    ('int44', '1..16'),
    ('emm1', 'Did you mean'),
    ('float8', 'Formats are written'),
  ],
)
def test_bad_names_say_what_is_allowed(name, hint):
  with pytest.raises(ValueError, match=hint.replace('.', r'\.')):
    formats.get(name)


def test_wrong_types():
  with pytest.raises(TypeError, match='string or a Format'):
    formats.get(4)
  with pytest.raises(TypeError, match='floating point'):
    formats.get('e2m1').encode(np.arange(3))
  with pytest.raises(ValueError, match='noise'):
    formats.get('int4').encode(np.zeros(3, np.float32), 'stochastic')
  with pytest.raises(ValueError, match='rounding'):
    formats.get('int4').encode(np.zeros(3, np.float32), 'up')
  with pytest.raises(ValueError, match='16 bits'):
    formats.get('fp32').values()


def test_table_of_ones_own():
  fmt = formats.Table('mine', 2, (-2.0, 0.0, 0.5, 8.0))
  assert fmt.round(np.float32([-9, 0.2, 4.25, 5])).tolist() == [-2, 0, 0.5, 8]
  with pytest.raises(ValueError, match='ascending'):
    formats.Table('bad', 2, (1.0, 0.0))
  with pytest.raises(ValueError, match='between each pair'):
    formats.Table('bad', 2, (0.0, 1.0, 2.0), (0.5, 2.5))
  with pytest.raises(TypeError, match='side data'):
    formats.get('bitmod4').encode(np.zeros(3, np.float32))
  with pytest.raises(ValueError, match='2 to 4'):
    formats.Table('bad', 2, (1.0, 2.0, 3.0, 4.0, 5.0))
