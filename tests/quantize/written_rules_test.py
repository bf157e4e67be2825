"""MX, NVFP4 and their kin, bit for bit against the rules in plain NumPy.

Written from OCP Microscaling v1.0 and the NVFP4 format alone. Where lowbit
differs by design, the rule here says so: float32 subnormals are zeros, scales
are not below 2^-126, and a block with a NaN or an infinity is NaN.
"""

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st

import lowbit as lb

SETTINGS = hypothesis.settings(deadline=None, derandomize=True, max_examples=40)


def magnitudes(exponent, mantissa, count):
  """The first `count` magnitudes of ExMy, in the order of their codes."""
  code = np.arange(count)
  field, fraction = code >> mantissa, (code % 2**mantissa) / 2**mantissa
  bias = 2 ** (exponent - 1) - 1
  normal = 2.0 ** (field - bias) * (1 + fraction)
  return np.where(field == 0, 2.0 ** (1 - bias) * fraction, normal)


# Element -> (magnitudes by code, emax, mantissa bits).
ELEMENTS = {
  'e2m1': (magnitudes(2, 1, 8), 2, 1),
  'e2m3': (magnitudes(2, 3, 32), 2, 3),
  'e3m2': (magnitudes(3, 2, 32), 4, 2),
  'e4m3': (magnitudes(4, 3, 127), 8, 3),
  'e5m2': (magnitudes(5, 2, 124), 15, 2),
  'int8': (np.arange(128.0), 6, 6),  # 64 times OCP's, the scale 64 less.
}


def nearest_even(y, values):
  """The nearest of ascending magnitudes, ties to the even code, saturated."""
  middles = (values[1:] + values[:-1]) / 2
  size = np.abs(y)
  code = np.searchsorted(middles, size)
  at = np.minimum(code, len(middles) - 1)
  code = code + ((middles[at] == size) & (at % 2 == 1) & (code == at))
  return np.copysign(values[code], y)


def shared_exponent(amax, element, kind):
  """s of the shared scale 2^s, exactly; amax > 0 in float64."""
  values, emax, mantissa = ELEMENTS[element]
  fraction, exponent = np.frexp(amax)  # amax = fraction 2^exponent, >= 1/2.
  floor = exponent - 1
  if kind == 'floor':
    s = floor - emax
  elif kind == 'ceil':
    s = floor + (fraction != 0.5) - emax
  elif kind == 'rceil':
    s = floor - emax + (amax > values[-1] * 2.0 ** (floor - emax))
  elif kind == 'even':
    rounded = np.floor(fraction * 2.0 ** (mantissa + 1) + 0.5)
    s = floor + (rounded == 2.0 ** (mantissa + 1)) - emax
  else:  # rne: amax^2 > 2 asks for the upper power.
    s = floor + ((2 * fraction) ** 2 > 2) - emax
  return np.clip(s, -126, 127)


def mx(x, element, kind):
  """(values, biased scale codes) of blocks x [n, 32], float32."""
  x = np.where(np.abs(x) < 2.0**-126, 0, x).astype(np.float64)
  amax = np.abs(x).max(-1, keepdims=True)
  good = np.isfinite(amax)
  positive = np.where(good & (amax > 0), amax, 1)
  s = np.where(amax > 0, shared_exponent(positive, element, kind), 0)
  scale = 2.0 ** s.astype(np.float64)
  y = nearest_even(x / scale, ELEMENTS[element][0]) * scale
  with np.errstate(over='ignore'):  # The largest float may round up to Inf.
    y = np.where(good, y, np.nan).astype(np.float32)
  return y, np.where(good, s + 127, 255)[:, 0]


def blocks(seed):
  """Blocks of 32 with everything that may go wrong."""
  rng = np.random.default_rng(seed)
  x = rng.standard_normal((64, 32))
  x *= 2.0 ** rng.integers(-130, 120, (64, 1)) + 0.0
  x[:8] = np.round(rng.standard_normal((8, 32)) * 8) / 4  # Ties.
  x[8] = 0
  x[9] = -0.0
  x[10, 3] = np.nan
  x[11, 3:5] = np.inf, -np.inf
  x[12] = 1e-40  # A subnormal number.
  x[13, :2] = 3.4e38, -3.4e38
  x[14] = 2.0**-126
  for i, amax in enumerate((1, 2, 6, 7.5, 448, 449, 28, 57344, 127, 2**0.5)):
    x[16 + i] = rng.uniform(-1, 1, 32) * amax
    x[16 + i, 5] = amax
    x[30 + i] = np.nextafter(np.float32(amax), np.float32(9e9))
    x[40 + i] = np.nextafter(np.float32(amax), np.float32(0))
  with np.errstate(over='ignore'):
    return x.astype(np.float32)


KINDS = ('floor', 'ceil', 'rceil', 'even', 'rne')
PAIRS = [(e, k) for e in ELEMENTS for k in KINDS]
FAST = [(e, k) for e, k in PAIRS if e == 'e2m1' or k == 'floor']


@pytest.mark.parametrize(
  'element, kind',
  [
    pytest.param(*p, marks=() if p in FAST else pytest.mark.slow) for p in PAIRS
  ],
)
def test_mx_is_the_written_rule(element, kind):
  spec = f'{element}@b32:e8m0-{kind}'
  quantize = jax.jit(lambda x: lb.quantize(x, spec))
  for seed in range(3):
    x = blocks(seed)
    q = quantize(x)
    want, codes = mx(x, element, kind)
    np.testing.assert_array_equal(q.scale[:, 0], codes)
    np.testing.assert_array_equal(lb.dequantize(q), want)


finite = st.floats(width=32, allow_nan=False, allow_infinity=False)


@SETTINGS
@hypothesis.given(st.lists(finite, min_size=64, max_size=64))
def test_mx_on_any_floats(numbers):
  x = np.float32(numbers).reshape(2, 32)
  for name, element in (('mxfp4', 'e2m1'), ('mxfp8_e4m3', 'e4m3')):
    want, _ = mx(x, element, 'floor')
    np.testing.assert_array_equal(lb.fake_quantize(jnp.asarray(x), name), want)


def nvfp4(x):
  """Values of x [rows, 16 n]; every step is rounded to float32."""
  f32 = np.float32
  x = np.where(np.abs(x) < 2.0**-126, f32(0), x)
  grouped = x.reshape(len(x), -1, 16)
  amax = np.abs(grouped).max(-1, keepdims=True)
  per_block = amax / f32(6)
  tensor = per_block.max() / f32(448) if amax.any() else f32(1)
  tensor = np.maximum(tensor, f32(2.0**-126))
  block = nearest_even((per_block / tensor).astype(np.float64), E4M3)
  step = block.astype(f32) * tensor
  y = np.divide(grouped, step, out=np.zeros_like(grouped), where=step != 0)
  y = nearest_even(y.astype(np.float64), ELEMENTS['e2m1'][0]).astype(f32)
  return (y * step).reshape(x.shape)


E4M3 = ELEMENTS['e4m3'][0]


@pytest.mark.parametrize('scale', [1.0, 3e-5, 1e30, 1e-36, 2e36])
def test_nvfp4_is_the_written_rule(scale):
  x = np.random.default_rng(0).standard_normal((64, 64)).astype(np.float32)
  x[:8] = np.round(x[:8] * 4) / 4  # Ties.
  x[8, :32] = 0  # Blocks of zeros.
  x[9] *= 1e-7  # Below what an E4M3 scale can hold next to the others.
  x[10, :16] *= 30
  x = (x * np.float32(scale)).astype(np.float32)
  got = lb.fake_quantize(jnp.asarray(x), 'nvfp4')
  np.testing.assert_array_equal(got, nvfp4(x))
  np.testing.assert_array_equal(got[8, :32], 0)


def test_nvfp4_in_exact_arithmetic():
  """s_t = amax / 2688, s_b = E4M3(amax_b / 6 s_t), q = E2M1(x / s_b s_t)."""
  x = np.random.default_rng(1).standard_normal((64, 64)).astype(np.float32)
  exact = x.astype(np.float64).reshape(64, 4, 16)
  amax = np.abs(exact).max(-1, keepdims=True)
  tensor = amax.max() / (6 * 448)
  block = nearest_even(amax / (6 * tensor), E4M3)
  codes = nearest_even(exact / (block * tensor), ELEMENTS['e2m1'][0])
  q = lb.quantize(jnp.asarray(x), 'nvfp4')
  values = q.spec.format.decode(q.codes)
  np.testing.assert_array_equal(values, codes.reshape(64, 64))
  want = (codes * block * tensor).reshape(64, 64)
  np.testing.assert_allclose(lb.dequantize(q), want, rtol=3e-7)


@SETTINGS
@hypothesis.given(
  st.lists(st.floats(-2e6, 2e6, width=32), min_size=64, max_size=64)
)
def test_nvfp4_on_any_floats(numbers):
  x = np.float32(numbers).reshape(2, 32)
  got = lb.fake_quantize(jnp.asarray(x), 'nvfp4')
  np.testing.assert_array_equal(got, nvfp4(x))


def test_a_block_of_zeros_does_not_set_the_second_level():
  x = 1e-5 * jax.random.normal(jax.random.key(0), (4, 64))
  for spec in ('nvfp4', 'int4z@g16:(int8@g256)'):
    plain = lb.fake_quantize(x, spec)
    got = lb.fake_quantize(x.at[0, 16:32].set(0), spec)
    np.testing.assert_array_equal(got[1:], plain[1:])
    np.testing.assert_array_equal(got[0, 16:32], 0)


@pytest.mark.parametrize('name', ['int4', 'int8', 'e4m3', 'e2m3', 'nf4'])
def test_float_scales_divide_exactly(name):
  """x / s, s = amax / max, each rounded once: no reciprocals of XLA's."""
  rng = np.random.default_rng(0)
  x = rng.standard_normal((256, 64)).astype(np.float32)
  x[:64] = np.round(x[:64] * 8)  # Many ties.
  fmt = lb.formats.get(name)
  scale = np.abs(x).max(-1, keepdims=True) / np.float32(fmt.max)
  q = lb.quantize(jnp.asarray(x), f'{name}@channel')
  np.testing.assert_array_equal(q.scale, scale)
  np.testing.assert_array_equal(q.codes, fmt.encode(x / scale))


def test_scales_near_the_largest_float():
  x = jnp.asarray([[3e38, -3e38, 1.5e38, 0.0]])
  for spec in ('nf4@channel', 'int4z@channel', 'nf4z@channel', 'e2m1@channel'):
    y = lb.fake_quantize(x, spec)
    np.testing.assert_allclose(y[0, :2], x[0, :2], rtol=0.1)
  y = lb.fake_quantize(x * 1e-5, 'int4@channel:fp16')
  np.testing.assert_array_equal(y[0, :2], [7 * 65504, -7 * 65504])
