import itertools
import warnings

import chex
import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st

import lowbit as lb
from lowbit import kernels
from lowbit.experiment import targets
from lowbit.kernels import choice, operands
from lowbit.kernels.dequant_matmul import api, explain, pairs, reference

RUNS = {
  'xla': {'implementation': 'xla'},
  'tpu': {'implementation': 'tpu', 'interpret': True},
  'gpu': {'implementation': 'gpu', 'interpret': True},
}
# A part of the largest output: rounding of x W in float32, and to bfloat16.
TOLERANCE = {'float32': 1e-5, 'bfloat16': 8e-3}
# Every width; every kind of value, scale and zero point. dtypes take turns.
SPECS = [
  'int8@channel',
  'int8z@g64',
  'mxfp8_e4m3',
  'posit8_1@channel',
  'int7@g128',
  'mxfp6_e2m3',
  'mxfp6_e3m2',
  'int5@g16',
  'int4@g256',
  'int4z@g64',
  'nf4@g64:(int8@g256)',
  'nf4z@g128',
  'mxfp4',
  'nvfp4',
  'dint4@t64x16',
  'int3z@g32',
  'nf3@channel',
  'int2z@channel',
  'ternary@g128',
  'ternary@tensor',
  'int1@g64:bf16',
]


def weights(k, n, spec, seed=0):
  w = jax.random.normal(jax.random.key(seed), (k, n))
  return lb.pack(lb.quantize(w, spec, axis=0))


def inputs(m, k, dtype='float32', seed=1):
  return jax.random.normal(jax.random.key(seed), (m, k)).astype(dtype)


def check(x, w, **run):
  want = reference.dequant_matmul(x.astype(jnp.float32), w)
  got = kernels.dequant_matmul(x, w, **run)
  assert got.dtype == x.dtype
  limit = TOLERANCE[x.dtype.name] * float(jnp.abs(want).max())
  chex.assert_trees_all_close(got.astype(jnp.float32), want, rtol=0, atol=limit)


@pytest.mark.parametrize('run', RUNS)
@pytest.mark.parametrize('i', range(len(SPECS)), ids=SPECS)
def test_matches_the_reference(run, i):
  # Ragged M, N and K: three chunks of 256 codes and 136, or 640 and 264.
  n = 256 if 'z' in SPECS[i] else 200
  x = inputs(3, 904, list(TOLERANCE)[i % 2])
  check(x, weights(904, n, SPECS[i]), **RUNS[run])


@pytest.mark.parametrize('run', RUNS)
@pytest.mark.parametrize('spec', ['int4@g64', 'int8@channel', 'e4m3@g64'])
def test_unpacked_codes_are_taken_as_they_are(run, spec):
  q = lb.unpack(weights(520, 64, spec))
  check(inputs(2, 520), q, **RUNS[run])


@pytest.mark.parametrize('run', RUNS)
@pytest.mark.parametrize('rows', [1, 2, 33])
def test_any_number_of_rows(run, rows):
  check(inputs(rows, 300), weights(300, 130, 'int3@g64'), **RUNS[run])


# Groups of half a chunk, of a few codes, of one row of pairs, across chunks.
@pytest.mark.parametrize(
  'spec', ['nf4@g64', 'nf4@channel', 'nf4@g6', 'nf4@g40', 'dint4@g384']
)
@pytest.mark.parametrize('rows', [1, 2])
def test_few_rows_look_up_products_of_two_codes(rows, spec):
  w = weights(904, 300, spec)
  assert pairs.fits(operands.take_apart(w))
  check(inputs(rows, 904), w, implementation='xla')


# No table of 16 values, a zero point, an odd group, too few columns.
@pytest.mark.parametrize(
  'spec, n',
  [('int4@g64', 300), ('nf4z@g64', 300), ('nf4@g5', 300), ('nf4@g64', 200)],
)
def test_what_is_not_looked_up_in_pairs(spec, n):
  w = weights(320, n, spec)
  assert not pairs.fits(operands.take_apart(w))
  check(inputs(1, 320), w, implementation='xla')


@pytest.mark.parametrize('run', RUNS)
def test_extreme_codes(run):
  q = lb.quantize(jnp.ones((320, 128)), 'int6f@g64', axis=0)
  codes = jnp.where(jnp.arange(320)[:, None] % 3 == 0, -32, 31)
  codes = jnp.broadcast_to(codes, q.codes.shape).astype(jnp.int8)
  check(inputs(2, 320), lb.pack(lb.QTensor(codes, *_rest(q))), **RUNS[run])
  w = jnp.zeros((320, 128)).at[64:128].set(1.0)  # Groups of zeros.
  check(inputs(2, 320), lb.pack(lb.quantize(w, 'mxfp4', axis=0)), **RUNS[run])


def _rest(q):
  return q.scale, q.zero, q.spec, q.axis


@pytest.mark.parametrize('run', RUNS)
@pytest.mark.parametrize('spec, nan', [('mxfp4', 255), ('int4@g32', jnp.nan)])
def test_a_nan_scale_poisons_its_column_only(run, spec, nan):
  w = weights(320, 128, spec)
  scale = w.scale.at[2, 5].set(nan)
  w = lb.PackedQTensor(w.words, scale, None, w.size, w.spec, w.axis)
  y = np.asarray(kernels.dequant_matmul(inputs(2, 320), w, **RUNS[run]))
  assert np.isnan(y[:, 5]).all()
  assert np.isnan(y).sum() == 2


@hypothesis.given(
  st.integers(1, 9),
  st.integers(1, 700),
  st.integers(1, 300),
  st.sampled_from(['int4z@g32', 'int3@g64', 'ternary@g128', 'nf4@g40']),
)
@hypothesis.settings(deadline=None, max_examples=4)
def test_random_shapes(m, k, n, spec):
  x, w = inputs(m, k), weights(k, n, spec)
  check(x, w)
  for name, reasons in explain(x, w).items():
    if name in choice.PLATFORMS and not reasons:
      check(x, w, implementation=name, interpret=True)


@pytest.mark.parametrize('run', [{}, *RUNS.values()], ids=['best', *RUNS])
def test_gradients_are_those_of_the_dense_operator(run):
  x, w = inputs(3, 300), weights(300, 64, 'int4@g64')
  loss = lambda x, w, f: jnp.sum(jnp.sin(f(x, w)))
  kernel = lambda x, w: kernels.dequant_matmul(x, w, **run)
  grad = lambda f: jax.grad(loss, (0, 1), allow_int=True)(x, w, f)
  (dx, dw), (dx_, dw_) = grad(kernel), grad(reference.dequant_matmul)
  chex.assert_trees_all_close(dx, dx_, atol=1e-4 * float(jnp.abs(dx_).max()))
  limit = 1e-4 * float(jnp.abs(dw_.scale).max())
  chex.assert_trees_all_close(dw.scale, dw_.scale, atol=limit)


@pytest.mark.parametrize(
  'target, mark',
  [('v5e', 'tpu_custom_call'), ('h100', 'triton'), ('cpu', None)],
)
def test_the_kernel_is_chosen_when_the_program_is_lowered(target, mark):
  x = jax.ShapeDtypeStruct((2, 512), jnp.float32)
  w = jax.eval_shape(lambda: weights(512, 256, 'int4@g128'))
  target = targets.NAMED.get(target) or targets.Target('cpu', 'cpu', '')
  text = targets.lower(kernels.dequant_matmul, target, x, w).as_text()
  marks = {'tpu_custom_call', 'triton'}
  assert {m for m in marks if m in text} == {mark} - {None}


@pytest.mark.parametrize(
  'spec', ['int8@channel', 'int4@g128', 'int2@channel', 'nf4@g64']
)
def test_decoding_on_a_cpu_takes_no_memory(spec):
  w = jax.eval_shape(lambda: weights(4096, 1024, spec))
  x = jax.ShapeDtypeStruct((1, 4096), jnp.float32)
  program = jax.jit(kernels.dequant_matmul).lower(x, w).compile()
  packed = sum(a.size * a.dtype.itemsize for a in jax.tree.leaves(w))
  assert program.memory_analysis().temp_size_in_bytes < 0.3 * packed


def test_what_no_kernel_takes_is_computed_all_the_same():
  x = inputs(2, 300)
  w = lb.pack(lb.quantize(jax.random.normal(jax.random.key(0), (300, 40)),
                          'bitmod4@g32', axis=0))  # fmt: skip
  check(x, w)
  assert 'side data' in explain(x, w)['xla'][0]
  assert explain(x, w)['reference'] == []
  transposed = lb.pack(lb.quantize(jnp.ones((300, 40)), 'int4@g8', axis=1))
  check(x, transposed)


def test_a_fallback_is_said_once(monkeypatch):
  x, w = inputs(2, 300), weights(300, 64, 'int4@g96')
  monkeypatch.setattr(jax, 'default_backend', lambda: 'tpu')
  choice._warn_once.cache_clear()
  with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter('always')
    kernels.dequant_matmul(x, w)
    kernels.dequant_matmul(x, w)
  assert len(caught) == 1
  assert 'groups of 96' in str(caught[0].message)


def test_bad_input():
  x, w = inputs(2, 300), weights(300, 64, 'int4@g96')
  product = kernels.dequant_matmul
  with pytest.raises(TypeError, match='floating-point'):
    product(jnp.ones((2, 300), jnp.int32), w)
  with pytest.raises(TypeError, match='PackedQTensor'):
    product(x, jnp.ones((300, 64)))
  with pytest.raises(ValueError, match='300'):
    product(x[:, :200], w)
  short = lb.PackedQTensor(w.words[:-1], w.scale, None, 300, w.spec, w.axis)
  with pytest.raises(ValueError, match='150 bytes.*lowbit.pack'):
    product(x, short)
  with pytest.raises(ValueError, match='must be None or one of'):
    product(x, w, implementation='cuda')
  with pytest.raises(ValueError, match='interpret'):
    product(x, w, interpret=True)
  with pytest.raises(ValueError, match='lie on cpu'):
    product(x, weights(300, 64, 'int4@g64'), implementation='tpu')
  half = x.astype(jnp.float16)
  with pytest.raises(ValueError, match='float16.*groups of 96'):
    product(half, w, implementation='tpu', interpret=True)
  assert product(half, w).dtype == jnp.float16


def test_equal_shapes_are_traced_once(monkeypatch):
  count = itertools.count()
  once = api.xla.dequant_matmul

  def counted(*args, **kwargs):
    next(count)
    return once(*args, **kwargs)

  monkeypatch.setattr(api.xla, 'dequant_matmul', counted)
  w = weights(77, 33, 'int4@channel')
  for seed in range(3):
    kernels.dequant_matmul(inputs(5, 77, seed=seed), w)
  assert next(count) <= 2
