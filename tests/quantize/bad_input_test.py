"""What quantizers do with what does not fit: a documented value, or an error.

Each error names the argument, what came, the rule and a way out.
"""

import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lowbit as lb

KEY = jax.random.key(0)
X = jax.random.normal(KEY, (4, 40))


def row(*values, width=32):
  """One block [1, width] that starts with these values."""
  tail = [0.0] * (width - len(values))
  return jnp.asarray([[*values, *tail]], jnp.float32)


@pytest.mark.parametrize(
  'name, rule',
  [
    ('INT4@g64', 'Did you mean int4'),
    ('int4 @g64', 'without spaces'),
    ('int4@ g64', 'without spaces'),
    ('int4@G64', 'Unknown block @G64'),
    ('int4@g-1', 'Cannot read'),
    ('int4@g٣', 'Cannot read'),
    ('int4@g64@g32', 'Cannot read'),
    ('int4@', 'Cannot read'),
    ('int4@g64:', 'Cannot read'),
    ('int4@g64~', 'Cannot read'),
    ('int4@g64!', 'Cannot read'),  # The mark stands behind the format.
    ('int4!!@g64', 'Cannot read'),
    ('int4@t0x3', 'got (0, 3)'),
    ('int4@t3', 'Unknown block @t3'),
    ('int4@g64:p101', '(0, 100], got 101'),
    ('int4@g64:pnan', "Unknown scale rule 'pnan'"),
    ('int4@g64:(int8@g4', 'Cannot read'),
    ('int0@g64', '1..16, got 0'),
    ('int4zz@g64', "Unknown format 'int4z'"),
    ('int4z@g64:unit', 'rules absmax, mse'),
    ('int4z@g64~away', 'no rounding away'),
    ('bf16z', 'fits in float32'),
    ('fp32z@g32', 'fits in float32'),
    ('mxfp4z', 'fixes its block'),
    ('nvfp5', 'The shorthands are'),
  ],
)
def test_bad_specs(name, rule):
  with pytest.raises(ValueError, match=re.escape(rule)):
    lb.Spec.parse(name)


@pytest.mark.parametrize(
  'fields, kind, rule',
  [
    ({'block': 0}, ValueError, 'got 0'),
    ({'block': -3}, ValueError, 'got -3'),
    ({'block': 2.5}, ValueError, 'got 2.5'),
    ({'block': True}, ValueError, 'got True'),
    ({'block': (1, 2, 3)}, ValueError, 'got (1, 2, 3)'),
    ({'block': [1, 2]}, ValueError, 'got [1, 2]'),
    ({'block': 'row'}, ValueError, "got 'row'"),
    ({'scale': 'absmax'}, TypeError, "Absmax(), got 'absmax'"),
    ({'scale_format': 3}, TypeError, '`scale_format` must be'),
    ({'rounding': 'up'}, ValueError, "got 'up'"),
    ({'rounding': None}, ValueError, 'got None'),
  ],
)
def test_bad_fields(fields, kind, rule):
  with pytest.raises(kind, match=re.escape(rule)):
    lb.Spec('int4', **fields)


def test_fields_that_numpy_and_names_give():
  spec = lb.Spec('int4', np.int64(32), scale_format='e4m3')
  assert spec == lb.Spec.parse('int4@b32:e4m3')
  assert type(spec.block) is int
  assert lb.Spec('int4', scale_format='fp32') == lb.Spec('int4')


@pytest.mark.parametrize('name', [None, 4, b'int4', ['int4']])
def test_a_spec_is_a_name_or_a_spec(name):
  with pytest.raises(TypeError, match='string or a Spec, got'):
    lb.quantize(X, name)


@pytest.mark.parametrize(
  'scale', ['int8', 'nf4', 'e2m1', 'uint8', 'int16', 'fixed8_4', 'bitmod4']
)
def test_scale_formats_without_a_nan(scale):
  with pytest.raises(ValueError, match='needs a NaN.*Use e8m0'):
    lb.Spec.parse(f'int4@g32:{scale}')


def test_scales_are_not_rounded_at_random():
  with pytest.raises(ValueError, match='no key'):
    lb.Spec('int4', 32, scale_format=lb.Spec.parse('int8@g4~stochastic'))


@pytest.mark.parametrize(
  'bad',
  [
    jnp.arange(4),
    jnp.ones(4, bool),
    jnp.ones(4, jnp.complex64),
    np.asarray(['a']),
    np.ones(4, np.longdouble),
    [1.0],
    1.0,
    None,
  ],
  ids=lambda x: str(getattr(x, 'dtype', type(x).__name__)),
)
def test_only_arrays_of_floats(bad):
  calls = (
    lambda: lb.quantize(bad, 'int4@tensor'),
    lambda: lb.fake_quantize(bad, 'int4@tensor'),
    lambda: lb.quantize_grid(bad, ['int4']),
    lambda: lb.quantize.quantize_with(bad, lb.quantize(X, 'int4')),
  )
  for call in calls:
    with pytest.raises(TypeError, match='`x` must be a floating-point array'):
      call()


def test_arrays_from_numpy():
  want = lb.quantize(X, 'int4@g8')
  chex.assert_trees_all_equal(lb.quantize(np.asarray(X), 'int4@g8'), want)
  wide = np.asarray(X, np.float64) + 1e-12  # Rounds to the same float32.
  chex.assert_trees_all_equal(lb.quantize(wide, 'int4@g8'), want)


@pytest.mark.parametrize(
  'axis, kind, rule',
  [
    (2, ValueError, '2 is out of range for an array of 2'),
    (-3, ValueError, '-3 is out of range'),
    ((), ValueError, 'at least one axis'),
    ((0, -2), ValueError, 'none twice'),
    (1.0, TypeError, 'got 1.0'),
    (None, TypeError, 'got None'),
    ('in', TypeError, "got 'in'"),
  ],
)
def test_bad_axes(axis, kind, rule):
  for spec in ('int4@g8', 'int4@channel'):
    with pytest.raises(kind, match=re.escape(rule)):
      lb.quantize(X, spec, axis)


def test_tiles_need_two_axes_and_groups_one():
  with pytest.raises(ValueError, match='Use a group'):
    lb.quantize(X[0], 'int4@t8x8')
  with pytest.raises(ValueError, match='Use a group'):
    lb.quantize(X, 'int4@t8x8', axis=(0, 1))
  with pytest.raises(ValueError, match='Use @tensor'):
    lb.quantize(X[0, 0], 'int4@g8')


@pytest.mark.parametrize('name', ['int4', 'mxfp4', 'nvfp4', 'nf4'])
def test_a_block_longer_than_the_axis_is_the_axis(name):
  spec = name if name in ('mxfp4', 'nvfp4') else f'{name}@g64'
  x = X[:, :12]
  q = lb.quantize(x, spec)
  assert q.scale.shape == (4, 1)
  if name not in ('mxfp4', 'nvfp4'):
    want = lb.fake_quantize(x, f'{name}@channel')
    np.testing.assert_array_equal(lb.dequantize(q), want)
  assert lb.quantize(x, 'int4@t64x64').scale.shape == (1, 1)


@pytest.mark.parametrize(
  'spec', ['int4!@g64', 'int4!@g32', 'mxfp4!', 'int4!@t8x64', 'int4!@t64x4']
)
def test_strict_specs_refuse_what_does_not_divide(spec):
  with pytest.raises(ValueError, match=r"\(4, 40\).*drop the '!'"):
    lb.quantize(X, spec)


@pytest.mark.parametrize(
  'spec', ['int4!@g8', 'int4!@g40', 'int4!', 'int4!@tensor', 'int4!@t8x4']
)
def test_strict_specs_take_what_divides(spec):
  chex.assert_trees_all_equal(
    lb.fake_quantize(X, spec), lb.fake_quantize(X, spec.replace('!', ''))
  )


SPECS = [
  'int4@tensor',
  'int4@channel',
  'int4@g32',
  'int4z@g32',
  'mxfp4',
  'nvfp4',
  'nf4@g64:(int8@g256)',
  'bitmod4@g32',
  'afpq_nf4@g32',
  'int8@tensor:p99.9',
  'int4@g32:mse',
  'nf4z@g32:density',
  'bf16',
]


@pytest.mark.parametrize('spec', SPECS)
@pytest.mark.parametrize('shape', [(0, 4), (4, 0)])
def test_empty_arrays(spec, shape):
  q = lb.quantize(jnp.zeros(shape), spec)
  assert q.codes.shape == lb.dequantize(q).shape == shape


@pytest.mark.parametrize('spec', ['int3z@g32', 'nvfp4', 'bitmod4@g32'])
@pytest.mark.parametrize('shape', [(0,), (2, 0, 3)])
def test_empty_arrays_are_packed(spec, shape):
  q = lb.quantize(jnp.zeros(shape), spec)
  chex.assert_trees_all_equal(lb.unpack(lb.pack(q)), q)


@pytest.mark.parametrize('spec', ['int8@tensor', 'int8@channel', 'bf16'])
def test_0d_arrays_are_one_block(spec):
  y = lb.fake_quantize(jnp.float32(3.0), spec)
  assert y.shape == ()
  assert y == 3
  with pytest.raises(ValueError, match='a scalar has no axis'):
    lb.pack(lb.quantize(jnp.float32(3.0), spec))


def test_a_large_array_does_not_lose_a_nan():
  # XLA's maximum over long rows of a large array does, on a CPU.
  x = jnp.ones((256, 256)).at[3, 70].set(jnp.nan)
  for spec in ('int8@g64', 'int8z@channel', 'mxfp4'):
    y = np.asarray(lb.fake_quantize(x, spec))
    assert np.isnan(y[3, 70]), spec
    assert np.isfinite(y[4]).all()


@pytest.mark.parametrize('spec', [s for s in SPECS if s != 'bf16'])
@pytest.mark.parametrize('bad', [jnp.nan, jnp.inf, -jnp.inf])
def test_nan_and_inf_take_their_block_along(spec, bad):
  x = jax.random.normal(KEY, (3, 128)).at[1, 70].set(bad)
  y = lb.fake_quantize(x, spec)
  assert jnp.isnan(y[1, 64:96]).all()
  if '@tensor' not in spec and spec not in ('nvfp4', 'nf4@g64:(int8@g256)'):
    assert jnp.isfinite(y[jnp.asarray([0, 2])]).all()


@pytest.mark.parametrize(
  'spec, want',
  [
    ('bf16_overflow@tensor:unit', [np.nan, np.inf, -np.inf]),
    ('e5m2@tensor:unit', [np.nan, 57344.0, -57344.0]),
    ('fixed8_4', [0.0, 127 / 16, -8.0]),  # Has neither.
  ],
)
def test_casts_give_nan_and_inf_as_the_format_has_them(spec, want):
  y = lb.fake_quantize(row(jnp.nan, jnp.inf, -jnp.inf, 1.0), spec)
  np.testing.assert_array_equal(y[0, :4], [*want, 1.0])


@pytest.mark.parametrize(
  'spec, want',
  [
    # floor leaves 7.9 at 1.98 times the largest value of E2M1 or E4M3.
    ('mxfp8_e4m3', 7.0),
    ('e4m3_overflow@b32:e8m0-floor', np.nan),
    ('e5m2_overflow@b32:e8m0-floor', np.inf),
    ('e2m1_overflow@b32:e8m0-floor', 6.0),  # Has no code to say it with.
    ('e4m3_overflow@b32:e8m0-ceil', 8.0),
  ],
)
def test_overflow_stays_in_its_element(spec, want):
  y = lb.fake_quantize(row(7.9, 1.0, -7.9), spec)
  np.testing.assert_array_equal(y[0, :3], [want, 1.0, -want])


def test_a_cast_without_saturation_overflows_as_in_ml_dtypes():
  spec = lb.Spec('e4m3_overflow', 'tensor', lb.quantize.Unit())
  x = row(448.0, 500.0, -1e9)
  want = np.asarray(x).astype(lb.formats.get('e4m3').dtype).astype(np.float32)
  np.testing.assert_array_equal(lb.fake_quantize(x, spec), want)


@pytest.mark.parametrize('exponent', [-120, -124, -125, -126])
def test_e8m0_scales_end_at_the_smallest_normal_float32(exponent):
  # The written scale is 2^(exponent - 2); below 2^-126 it is clamped.
  x = row(1.0, 0.5, -0.25) * jnp.float32(2.0**exponent)
  q = lb.quantize(x, 'mxfp4')
  assert int(q.scale[0, 0]) == max(exponent - 2, -126) + 127
  step = 2.0 ** max(exponent - 2, -126)
  scaled = np.asarray(x, np.float64) / step
  scaled[np.abs(np.asarray(x)) < 2.0**-126] = 0  # XLA flushes those.
  want = lb.formats.get('e2m1').round(np.float32(scaled)) * step
  np.testing.assert_array_equal(lb.dequantize(q), np.float32(want))


@pytest.mark.parametrize('kind', ['floor', 'ceil', 'rceil', 'even', 'rne'])
def test_e8m0_scales_end_at_2_to_the_127(kind):
  x = row(3.4e38, -1e38)
  q = lb.quantize(x, f'int1@b32:e8m0-{kind}')
  assert 253 <= int(q.scale[0, 0]) <= 254
  assert jnp.isfinite(lb.dequantize(q)).all()
  # By its value, 3.4e38 is nearest to 2^128, which e8m0 calls NaN.
  assert jnp.isnan(lb.fake_quantize(x, 'int1@b32:e8m0-absmax')).all()


@pytest.mark.parametrize(
  'ratio, scale',
  [
    (2.0**-9, 2.0**-9),
    (2.0**-10 * 1.01, 2.0**-9),
    (2.0**-10, 0.0),  # The tie goes to the even code.
    (2.0**-12, 0.0),
  ],
)
def test_nvfp4_blocks_whose_scale_underflows_are_zeros(ratio, scale):
  # One block sets the tensor's scale to 1, and its own to 448.
  x = jnp.concatenate([jnp.full((1, 16), 6 * 448.0), row(6 * ratio)], axis=1)
  q = lb.quantize(x, 'nvfp4')
  np.testing.assert_array_equal(lb.quantize.scales_of(q), [[448.0, scale, 0.0]])
  y = lb.dequantize(q)
  assert jnp.isfinite(y).all()
  assert (y[0, 16] == 0) == (scale == 0)
  grad = jax.grad(lambda x: lb.fake_quantize(x, 'nvfp4').sum())(x)
  np.testing.assert_array_equal(grad, 1)


@pytest.mark.parametrize(
  'spec, largest',
  [
    ('int4@g32:e4m3', 448.0),
    ('int4@g32:e5m2', 57344.0),
    ('int4@g32:fp16', 65504.0),
    ('int4@g32:e4m3_overflow', np.nan),
    ('int4@g32:fp16_overflow', np.nan),
  ],
)
def test_scales_too_large_for_their_format(spec, largest):
  x = row(1e20, -1e20, 1.0)
  y = lb.fake_quantize(x, spec)
  np.testing.assert_array_equal(y[0, :2], [7 * largest, -7 * largest])
  small = lb.fake_quantize(row(1e-20, -1e-21), spec)
  np.testing.assert_array_equal(small, 0)


@pytest.mark.parametrize(
  'spec, key, kind, rule',
  [
    ('int4@g8', KEY, ValueError, "rounding='nearest' and key=given"),
    ('int4@g8~floor', KEY, ValueError, "rounding='floor' and key=given"),
    ('int4@g8~stochastic', None, ValueError, 'key=None'),
    ('int4@g8~stochastic', 3, TypeError, 'got int of shape ()'),
    ('int4@g8~stochastic', jnp.zeros(2), TypeError, 'got float32'),
    (
      'int4@g8~stochastic',
      jax.random.split(KEY),
      TypeError,
      'of shape (2,)',
    ),
  ],
)
def test_wrong_keys(spec, key, kind, rule):
  for call in (lb.quantize, lb.fake_quantize):
    with pytest.raises(kind, match=re.escape(rule)):
      call(X, spec, key=key)
  like = lb.quantize(X, spec, key=KEY if 'stochastic' in spec else None)
  with pytest.raises(kind, match=re.escape(rule)):
    lb.quantize.quantize_with(X, like, key)


def test_keys_old_and_new_are_taken():
  raw = lb.quantize(X, 'int4@g8~stochastic', key=jax.random.PRNGKey(0))
  new = lb.quantize(X, 'int4@g8~stochastic', key=jax.random.key(0))
  chex.assert_trees_all_equal(raw, new)


def test_functions_of_a_qtensor_say_so():
  q = lb.quantize(X, 'int4@g8')
  calls = (
    lb.dequantize,
    lb.pack,
    lb.quantize.transpose,
    lambda x: lb.quantize.quantize_with(x, x),
  )
  for call in calls:
    with pytest.raises(TypeError, match='must be a QTensor, got'):
      call(X)
    with pytest.raises(TypeError, match='must be a QTensor, got'):
      call(lb.pack(q))
  with pytest.raises(TypeError, match='must be a PackedQTensor, got QTensor'):
    lb.unpack(q)
  with pytest.raises(TypeError, match='`dtype` must be floating point'):
    lb.dequantize(q, jnp.int8)
  with pytest.raises(ValueError, match=r'\(2, 40\) must have the shape of'):
    lb.quantize.quantize_with(X[:2], q)
  with pytest.raises(ValueError, match='no two axes'):
    lb.quantize.transpose(lb.quantize(X[0], 'int4@g8'))
  with pytest.raises(ValueError, match='whole bytes'):
    lb.pack(lb.quantize(X, 'int16'))


def test_a_grid_takes_a_list():
  with pytest.raises(TypeError, match="list of names, got 'int4'"):
    lb.quantize_grid(X, 'int4')
  with pytest.raises(ValueError, match='is empty'):
    lb.quantize_grid(X, [])
  with pytest.raises(ValueError, match='not a float grid'):
    lb.quantize_grid(X, ['int4z@g8', 'int4z@g8'])
