"""What quantizers promise, on any input: hypothesis looks for exceptions."""

import dataclasses

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st

import lowbit as lb
from lowbit import formats
from lowbit.quantize import packing, scales

SETTINGS = hypothesis.settings(deadline=None, derandomize=True, max_examples=25)
ANY = [n for n in formats.names() if n != 'fp32']
SIDE = ['bitmod3', 'bitmod4', 'afpq_e2m1', 'afpq_nf4', 'afpq_fixed8_-2']
ROWS, COLUMNS = 3, 40  # A ragged tail behind a block of 32.

# Spec -> (elements of a block, whether it is sign symmetric).
SPECS = {
  'int4@g32': (32, True),
  'e4m3@channel': (40, True),
  'mxfp4': (32, True),
  'mxint8': (32, True),
  'nvfp4': (16, True),
  'nf4@g32': (32, False),
  'posit8_1@channel': (40, True),
  'int4z@g32': (32, False),
  'afpq_e2m1@g32': (32, True),
}
# Quantizing twice is quantizing once where exponents alone set the scale.
POWERS = ('mxfp4', 'mxfp8_e4m3', 'mxint8', 'e2m1@b32:e8m0-rceil')

number = st.floats(-1e4, 1e4, width=32).map(
  lambda v: 0.0 if abs(v) < 1e-20 else v
)
tensor = st.lists(number, min_size=ROWS * COLUMNS, max_size=ROWS * COLUMNS).map(
  lambda v: np.float32(v).reshape(ROWS, COLUMNS)
)


@pytest.mark.parametrize('spec', SPECS)
def test_order_signs_and_powers_of_two(spec):
  fake = jax.jit(lambda x: lb.fake_quantize(x, spec))
  size, is_symmetric = SPECS[spec]

  @SETTINGS
  @hypothesis.given(tensor, st.integers(-20, 20))
  def check(x, k):
    y = np.asarray(fake(x))
    assert np.isfinite(y).all()
    for start in range(0, COLUMNS, size):
      block = np.s_[:, start : start + size]
      order = np.argsort(x[block], axis=1, kind='stable')
      rising = np.take_along_axis(y[block], order, 1)
      assert (np.diff(rising, axis=1) >= 0).all()
    np.testing.assert_array_equal(fake(np.ldexp(x, k)), np.ldexp(y, k))
    if is_symmetric:
      np.testing.assert_array_equal(fake(-x), -y)

  check()


@pytest.mark.parametrize('spec', [*POWERS, 'int4@g32', 'nf4@g32', 'nvfp4'])
def test_quantized_tensors_are_fixed_points(spec):
  """With their own scales always; with new ones for powers of two."""
  quantize = jax.jit(lambda x: lb.quantize(x, spec))
  again = jax.jit(lb.quantize.quantize_with)

  @SETTINGS
  @hypothesis.given(tensor)
  def check(x):
    q = quantize(x)
    y = lb.dequantize(q)
    np.testing.assert_array_equal(again(y, q).codes, q.codes)
    if spec in POWERS:
      np.testing.assert_array_equal(lb.dequantize(quantize(y)), y)

  check()


rule = st.one_of(
  st.sampled_from(
    [scales.Absmax(), scales.Unit(), scales.Mse(), scales.Density()]
    + [scales.PowerOfTwo(kind) for kind in scales.KINDS]
  ),
  st.builds(scales.Percentile, st.floats(0.01, 100)),
  st.builds(
    scales.Mse, st.integers(1, 99), st.floats(0.01, 1), st.floats(0.5, 4)
  ),
  st.builds(scales.Density, st.floats(1, 100)),
)
block = st.one_of(
  st.sampled_from(['tensor', 'channel', 'token']),
  st.integers(1, 512),
  st.tuples(st.integers(1, 256), st.integers(1, 256)),
)
rounding = st.sampled_from(formats.ROUNDINGS)


@st.composite
def specs(draw, depth=2):
  scale_format = None
  if depth:
    scale_format = draw(
      st.one_of(
        st.none(),
        st.sampled_from(['e8m0', 'e4m3', 'e5m2', 'bf16', 'fp16', 'posit8_2']),
        specs(depth=depth - 1),
      )
    )
  fields = {
    'format': draw(st.sampled_from([*formats.names(), *SIDE])),
    'block': draw(block),
    'scale': draw(rule),
    'scale_format': scale_format,
    'zero_point': draw(st.booleans()),
    'rounding': draw(rounding),
    'pad': draw(st.booleans()),
  }
  try:
    return lb.Spec(**fields)
  except ValueError:
    hypothesis.reject()


@hypothesis.given(specs())
@hypothesis.settings(
  deadline=None,
  derandomize=True,
  max_examples=300,
  suppress_health_check=list(hypothesis.HealthCheck),
)
def test_names_of_specs_parse_and_print(spec):
  name = str(spec)
  assert lb.Spec.parse(name) == spec, name
  assert str(lb.Spec.parse(name)) == name


minifloats = st.builds(
  lambda e, m, kind, bias, saturate: (e, m, kind, bias, saturate),
  st.integers(1, 8),
  st.integers(0, 10),
  st.sampled_from(['finite', 'ieee', 'fn', 'fnuz']),
  st.none() | st.integers(-120, 120),
  st.booleans(),
)


@hypothesis.given(minifloats)
@SETTINGS
def test_names_of_minifloats_parse_and_print(fields):
  try:
    fmt = formats.Minifloat(*fields)
  except ValueError:
    hypothesis.reject()
  assert formats.get(fmt.name) == fmt


def coded(name, shape, seed=0):
  """A QTensor of random codes; only its scales come from the quantizer."""
  spec = lb.Spec.parse(name)
  rng = np.random.default_rng(seed)
  inner = spec.format
  inner = getattr(inner, 'inner', getattr(inner, 'members', (inner,))[0])
  q = lb.quantize(jnp.asarray(rng.standard_normal(shape), jnp.float32), spec)
  codes = rng.choice(inner.codes(), shape)
  zero = q.zero
  if spec.integer_zero:
    zero = rng.integers(0, 2**spec.format.bits, q.zero.shape)
    zero = jnp.asarray(zero, q.zero.dtype)
  return dataclasses.replace(q, codes=jnp.asarray(codes), zero=zero)


def check_packing(q):
  p = jax.jit(lb.pack)(q)
  back = jax.jit(lb.unpack)(p)
  for a, b in zip(jax.tree.leaves(back), jax.tree.leaves(q), strict=True):
    assert a.dtype == b.dtype
    np.testing.assert_array_equal(a, b)
  assert lb.bits(p) == lb.bits(q)
  length = q.shape[q.axis[-1]]
  size = packing.packed_size(q.spec.format, length) * (q.codes.size // length)
  assert p.words.size == size


PACKED = (
  *(f'int{b}@g16' for b in range(1, 9)),
  'ternary@g16',
  'int3z@g16',
  'dint4@g16',
  'e2m3@g16',
  'posit6_1@g16',
  'nvfp4',
  'int4z@g16:(int8@channel)',
  'int2@g16:(fp16@tensor)',
  'nf3@g16:(e4m3@g4:bf16)',
  'bitmod3@g16:(int8@channel)',
  'afpq_ternary@g16:(e4m3@tensor)',
  'afpq_int5@g16:fp16',
  'nf4z@g16:bf16',
)


@pytest.mark.parametrize('name', PACKED)
def test_packed_tensors_come_back(name):
  q = coded(name, (3, 37))
  check_packing(q)
  check_packing(q.T)


@pytest.mark.slow
@pytest.mark.parametrize('name', ANY)
def test_every_format_packs(name):
  fmt = formats.get(name)
  if fmt.bits > 8:
    with pytest.raises(ValueError, match='at most 8 bits'):
      lb.pack(coded(f'{name}@channel', (2, 3)))
    return
  affine = isinstance(fmt, formats.Integer) and not fmt.signed
  for length in (1, 2, 7, 8, 9, 31, 64, 255, 257, 640, 641):
    name = f'int{fmt.bits}z' if affine else name
    check_packing(coded(f'{name}@g16', (2, length), length))
