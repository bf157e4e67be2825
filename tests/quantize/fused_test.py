"""Fake quantization in one program: its bits, and what it moves in memory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lowbit as lb
from lowbit.experiment import bench_quantize, timing
from lowbit.quantize import fused, scales

FORMATS = [n for n in lb.formats.names() if n != 'e8m0']


def spec_of(name):
  return f'{name[1:]}z@g32' if name.startswith('uint') else f'{name}@g32'


SPECS = (
  *map(spec_of, FORMATS),
  *(n for n in lb.quantize.SHORTHANDS if n != 'bfp6'),
  *('e2m1z@g32', 'nf4z@channel', 'bitmod3@g32', 'bitmod4@g32', 'afpq_e2m1@g32'),
  *('nf4@g64:(int8@g256)', 'int4@t16x16', 'int4@g48', 'int4@channel:bf16'),
  *('e4m3@b32:e8m0-even', 'int4@tensor', 'bf16', 'fixed8_4', 'int4@g64:mse'),
)
FAST = (
  *('int4@g32', 'int3z@g32', 'e2m1@g32', 'e5m2fnuz@g32', 'nf4@g32', 'mxint8'),
  *('posit8_1@g32', 'dint4@g32', 'nvfp4', 'afpq_e2m1@g32', 'int4@channel:bf16'),
)


def hard_input():
  rng = np.random.default_rng(0)
  x = rng.standard_normal((16, 128)).astype(np.float32)
  x[0, :64], x[1, ::2] = 0, -0.0
  x[2, 3], x[3, 70] = np.nan, -np.inf
  x[4] *= 2e38 / np.abs(x[4]).max()
  x[5] *= 1e-36
  x[6] = np.round(x[6] * 4) / 4 * 7  # Ties.
  return jnp.asarray(x)


def bits(y):
  """The patterns of `y`, with one NaN."""
  y = np.asarray(y).astype(np.float32)
  return np.where(np.isnan(y), np.float32(np.nan), y).view(np.uint32)


def check_round_trip(spec, dtype='float32'):
  key = jax.random.key(1) if spec.endswith('~stochastic') else None
  x = hard_input().astype(dtype)
  want = lb.dequantize(lb.quantize(x, spec, key=key), x.dtype)
  got = lb.fake_quantize(x, spec, key=key)
  np.testing.assert_array_equal(bits(got), bits(want))
  got = jax.jit(lambda x: lb.fake_quantize(x, spec, key=key))(x)
  np.testing.assert_array_equal(bits(got), bits(want))


@pytest.mark.parametrize('spec', FAST)
def test_no_codes_and_the_same_bits(spec):
  check_round_trip(spec)


@pytest.mark.slow
@pytest.mark.parametrize('spec', SPECS)
def test_no_codes_and_the_same_bits_everywhere(spec):
  check_round_trip(f'{spec}~stochastic', 'bfloat16')
  if spec not in FAST:
    check_round_trip(spec)


QUICK = ('int8@channel', 'mxfp4', 'nvfp4', 'mxfp4~stochastic')
CASES = [
  pytest.param(case, marks=() if case in QUICK else pytest.mark.slow)
  for case in bench_quantize.CASES
]


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
@pytest.mark.parametrize('case', CASES)
def test_one_pass_writes_and_one_reads_the_scales(case, dtype):
  """x is read for the scales and for the elements; the result is written."""
  key = jax.random.key(0) if case.endswith('~stochastic') else None
  x = jax.random.normal(jax.random.key(1), (512, 512), dtype)
  for function in (lb.quantize, lb.fake_quantize):
    f = lambda x, function=function: function(x, case, key=key)
    program = timing.compile(f, x)
    assert program.passes == 2
    temporary = program.compiled.memory_analysis().temp_size_in_bytes
    assert temporary < x.size  # A byte an element: scales in float32.
    large = sum(
      a.nbytes for a in jax.tree.leaves(program()) if a.size == x.size
    )
    moved = program.bytes_accessed - 2 * x.nbytes - large
    # Scales are read and written by some steps: at most 1/16 of the elements.
    scales = lb.quantize.scales_of(lb.quantize(x, case, key=key)).nbytes
    assert 0 <= moved < 16 * scales + 4096


def test_groups_of_rows_are_two_passes_too():
  """The kernels of Flax are [in, out], in groups along the first axis."""
  x = jax.random.normal(jax.random.key(1), (2048, 64))
  for spec in ('mxfp4', 'int4@g128', 'int8@channel'):
    f = lambda x, spec=spec: lb.fake_quantize(x, spec, axis=0)
    assert timing.compile(f, x).passes == 2


@pytest.mark.parametrize('axis', [0, 1])
@pytest.mark.parametrize('spec', ['int4@g16', 'int4@g128', 'int4@channel'])
def test_nan_reaches_its_block_in_large_arrays(spec, axis):
  x = jnp.ones((2048, 2048)).at[1500, 300].set(jnp.nan)
  y = np.asarray(lb.fake_quantize(x, spec, axis=axis))
  size = {'g16': 16, 'g128': 128, 'channel': 2048}[spec.partition('@')[2]]
  assert np.isnan(y).sum() == size
  assert np.isnan(y[1500, 300])


@pytest.mark.parametrize(
  ('shape', 'axes'),
  [
    ((4, 8, 16), (2,)),
    ((4, 8, 128), (2,)),
    ((3, 128, 5), (1,)),
    ((2, 3, 97), (2,)),
    ((2, 600), (1,)),
    ((3, 4096), (0, 1)),
    ((2048, 3), (0,)),
    ((3, 64, 5), (1,)),
    ((3, 100, 5), (1,)),
    ((3, 37, 5), (1,)),
    ((64, 3, 40, 5), (0, 2)),
    ((3, 16, 4, 16), (1, 3)),
    ((2, 0), (1,)),
    ((), ()),
  ],
)
def test_magnitudes_as_integers(shape, axes):
  x = np.array(jax.random.normal(jax.random.key(0), shape))
  flat = x.reshape(-1)
  flat[:1], flat[40:41], flat[130:131] = np.nan, -np.inf, -9
  want = np.max(np.abs(x), axis=axes, keepdims=True, initial=0.0)
  got = jax.jit(scales.absmax, static_argnums=1)(x, axes)
  np.testing.assert_array_equal(got, want)
  good = np.nan_to_num(x, nan=0.5, posinf=1, neginf=1)
  slope = jax.grad(lambda x: scales.absmax(x, axes).sum())(good)
  largest = np.abs(good) == np.max(np.abs(good), axes, keepdims=True, initial=0)
  np.testing.assert_array_equal(slope, np.sign(good) * largest)


def test_a_cast_is_one_pass():
  program = timing.compile(lambda x: lb.fake_quantize(x, 'bf16'), jnp.ones(999))
  assert program.passes == 1


@pytest.mark.parametrize('name', ['nf4', 'flint5', 'dynamic8'])
def test_tables_gather_from_no_large_array(name):
  """Up to 5 bits by selects; wider ones by a few thousand buckets at most."""
  fmt = lb.formats.get(name)
  x = jnp.ones((64, 64))
  for f in (fmt.encode, fmt.round):
    text = timing.compile(f, x).compiled.as_text()
    assert (' gather(' in text) == (fmt.bits > 5)
    lines = [line for line in text.splitlines() if ' constant({' in line]
    for line in lines:
      assert int(line.split('[')[1].split(']')[0]) <= 2**12


def test_inside_marks_what_did_not_saturate():
  spec = lb.Spec('int4', 'tensor', lb.quantize.Unit())
  x = jnp.asarray([-9.0, -7.0, 0.0, 6.9, 7.1, jnp.nan])
  y, inside, _ = fused.round_trip(x, spec, with_inside=True)
  np.testing.assert_array_equal(y, [-7, -7, 0, 7, 7, 0])
  np.testing.assert_array_equal(inside, [0, 1, 1, 1, 0, 0])
  assert fused.round_trip(x, spec)[1] is None
  x = jax.random.normal(jax.random.key(0), (40, 20))
  for spec in ('int4z@g8', 'nf4z@g8', 'int8@g8', 'e4m3@g8', 'nf4@g8'):
    assert fused.round_trip(x, spec, with_inside=True)[1].all(), spec


def test_an_estimator_of_ones_own_sees_the_mask():
  @jax.custom_jvp
  def halved(x, q, inside):
    return q

  @halved.defjvp
  def _(primals, tangents):
    _, q, inside = primals
    return q, jnp.where(inside, tangents[0], tangents[0] / 2)

  spec = lb.Spec('int4', 'tensor', lb.quantize.Unit())
  fake = lambda x: lb.fake_quantize(x, spec, estimator=halved).sum()
  np.testing.assert_array_equal(
    jax.grad(fake)(jnp.asarray([1.0, 20.0])), [1, 0.5]
  )
