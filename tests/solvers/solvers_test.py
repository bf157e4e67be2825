import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lowbit as lb
from lowbit import solvers


def layer(seed, out=64, width=96, tokens=512, gain=1.0):
  """Correlated inputs, a few of them large, and Gaussian weights."""
  rng = np.random.default_rng(seed)
  basis = np.linalg.qr(rng.normal(size=(width, width)))[0]
  spectrum = np.arange(1, width + 1) ** -0.5
  x = (rng.normal(size=(tokens, width)) * spectrum) @ basis.T
  x[:, rng.choice(width, 2, replace=False)] *= gain
  w = rng.normal(size=(out, width)) / np.sqrt(width)
  return jnp.asarray(x, jnp.float32), jnp.asarray(w, jnp.float32)


def error(x, w, q):
  return float(jnp.sum((x @ (w - lb.dequantize(q)).T) ** 2))


def test_inverse_factor():
  x, _ = layer(0)
  h = solvers.observe(x).hessian
  u = np.asarray(solvers.inverse_factor(h, 0.01), np.float64)
  damped = np.asarray(h, np.float64) + 0.01 * np.mean(np.diag(h)) * np.eye(96)
  np.testing.assert_allclose(np.tril(u, -1), 0)
  np.testing.assert_allclose(u.T @ u @ damped, np.eye(96), atol=1e-3)


@pytest.mark.parametrize(
  'spec',
  [
    'int3z@channel',
    'int4@g32',
    'nf4@g32',
    'mxfp4',
    'e3m2@channel',
    'int3z@g40',
  ],
)
@pytest.mark.parametrize('act_order', [False, True])
def test_gptq_beats_nearest_and_block_size_changes_nothing(spec, act_order):
  x, w = layer(1, gain=10.0)
  h = solvers.observe(x).hessian
  q = solvers.gptq(w, h, spec, act_order=act_order)
  assert error(x, w, q) < 0.8 * error(x, w, solvers.nearest(w, spec))
  other = solvers.gptq(w, h, spec, act_order=act_order, block=13)
  same = jnp.mean((q.codes == other.codes).astype(jnp.float32))
  assert float(same) > 0.999  # Up to ties of the last bit.


def test_gptq_on_a_diagonal_hessian_is_nearest():
  _, w = layer(2)
  h = jnp.diag(jnp.linspace(0.5, 2.0, 96))
  q = solvers.gptq(w, h, 'int4@g32', damping=0.0)
  chex.assert_trees_all_equal(q, solvers.nearest(w, 'int4@g32'))


def test_gptq_error_identity():
  # sum E^2 = tr((W - Q) H (W - Q)^T) for the damped H, for any quantizer.
  x, w = layer(3)
  h = np.asarray(solvers.observe(x).hessian, np.float64)
  h += 0.01 * np.mean(np.diag(h)) * np.eye(96)
  u = np.linalg.cholesky(np.linalg.inv(h)).T
  q = solvers.gptq(w, jnp.asarray(h, jnp.float32), 'int3@channel', damping=0.0)
  d = np.asarray(w - lb.dequantize(q), np.float64)
  total = np.trace(d @ h @ d.T)
  # E follows from D = E U: every column's error, moved onward.
  e = d @ np.linalg.inv(u)
  np.testing.assert_allclose((e**2).sum(), total, rtol=1e-6)
  # And each column is nearest after compensation: |e_i| <= step / (2 U_ii).
  step = np.asarray(lb.quantize.scales_of(q))
  inside = np.abs(np.asarray(q.codes)) < 3
  bound = step / 2 / np.diag(u)[None] * (1 + 1e-3)
  assert (np.abs(e) <= bound)[inside].all()


def test_dynamic_groups():
  x, w = layer(4, gain=10.0)
  h = solvers.observe(x).hessian
  q = solvers.gptq(w, h, 'int3z@g32', dynamic_groups=True)
  small = solvers.gptq(w, h, 'int3z@g32', dynamic_groups=True, block=8)
  chex.assert_trees_all_close(q.scale, small.scale, rtol=1e-5)
  assert error(x, w, q) < error(x, w, solvers.nearest(w, 'int3z@g32'))
  with pytest.raises(ValueError, match='dynamic_groups'):
    solvers.gptq(w, h, 'int3z@channel', dynamic_groups=True)


def test_dead_inputs_get_zero_weights():
  x, w = layer(5)
  h = solvers.observe(x.at[:, 7].set(0.0)).hessian
  q = lb.dequantize(solvers.gptq(w, h, 'int4@g32'))
  assert jnp.isfinite(q).all()
  np.testing.assert_array_equal(q[:, 7], 0)


def test_one_trace_serves_two_layers():
  x, w = layer(6)
  h = solvers.observe(x).hessian
  solvers.gptq(w, h, 'int4@g48')
  before = solvers.columns._solve._cache_size()
  solvers.gptq(w + 1, 2 * h, 'int4@g48', damping=0.1)
  assert solvers.columns._solve._cache_size() == before


def test_bad_input():
  x, w = layer(7)
  h = solvers.observe(x).hessian
  with pytest.raises(ValueError, match='Transpose'):
    solvers.gptq(w.T, h, 'int4')
  with pytest.raises(ValueError, match='nearest'):
    solvers.gptq(w, h, 'int4~floor')
  with pytest.raises(ValueError, match='whole groups'):
    solvers.search_clip(w, h, lb.Spec.parse('int4z@g64'))


@pytest.mark.parametrize('clip', [False, True])
def test_awq_beats_nearest_on_outliers_and_never_loses(clip):
  spec = 'int4z@g32'
  for gain in (1.0, 20.0):
    x, w = layer(8, gain=gain)
    stats = solvers.observe(x)
    q, scale = solvers.awq(w, stats, spec, clip=clip)
    got = lb.dequantize(q) / scale[None]
    awq = float(jnp.sum((x @ (w - got).T) ** 2))
    rtn = error(x, w, solvers.nearest(w, spec))
    assert awq <= rtn * (1.0 if not clip else 1.02)
    if gain > 1:
      assert awq < 0.6 * rtn
  _, errors = solvers.search_scale((w,), stats, lb.Spec.parse(spec))
  np.testing.assert_allclose(
    float(errors[0]) * 512, rtn, rtol=1e-3
  )  # a = 0 is nearest.


def test_statistics_merge_is_the_whole():
  x, _ = layer(9)
  x = x.reshape(8, 64, 96)
  merged = solvers.merge(solvers.observe(x[:3]), solvers.observe(x[3:]))
  chex.assert_trees_all_close(merged, solvers.observe(x), rtol=1e-5, atol=1e-5)
  stacked = jax.vmap(solvers.observe)(x)
  both = solvers.merge(stacked, stacked)
  chex.assert_trees_all_close(both.hessian, stacked.hessian, rtol=1e-5)
  assert both.count.shape == (8,)


def test_rotated_statistics():
  x, _ = layer(10)
  rotation = lb.transforms.Hadamard(96)
  got = solvers.rotate(solvers.observe(x), rotation)
  want = solvers.observe(rotation(x))
  chex.assert_trees_all_close(got.hessian, want.hessian, atol=1e-5)
  chex.assert_trees_all_close(got.mean, want.mean, atol=1e-5)
  assert (got.absmax >= want.absmax - 1e-5).all()
