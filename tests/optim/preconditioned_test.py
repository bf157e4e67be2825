"""Matrix functions, and 4-bit preconditioners against 32-bit ones."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import lowbit as lb
from lowbit import optim
from lowbit.optim import factors, matrix


def spd(n=128, ratio=1000.0, seed=0):
  """Random eigenvectors, half of the eigenvalues `ratio` times the others."""
  rng = np.random.default_rng(seed)
  u = np.linalg.qr(rng.normal(size=(n, n)))[0]
  values = np.where(np.arange(n) < n // 2, ratio, 1.0)
  return u, values


def nre(got, want):
  return np.linalg.norm(got - want) / np.linalg.norm(want)


def test_bjorck_makes_vectors_orthonormal():
  u, _ = spd(32)
  noisy = jnp.asarray(u + 0.02 * np.random.default_rng(1).normal(size=u.shape))
  noisy = noisy.astype(jnp.float32)
  defect = lambda v: float(jnp.max(jnp.abs(v.T @ v - jnp.eye(32))))
  assert defect(noisy) > 0.1
  assert defect(matrix.bjorck(noisy, 1)) < 0.5 * defect(noisy)
  assert defect(matrix.bjorck(noisy, 6)) < 1e-5


@pytest.mark.parametrize('p', [2, 4])
@pytest.mark.parametrize('condition', [10.0, 1e4])
def test_inverse_root_equals_the_decomposition(p, condition):
  u, _ = spd(24)
  values = np.geomspace(1, condition, 24)
  a = jnp.asarray(u[:24, :24] @ np.diag(values) @ u[:24, :24].T, jnp.float32)
  want = u @ np.diag((values + 1e-6 * condition) ** (-1 / p)) @ u.T
  got = jax.jit(matrix.inverse_root, static_argnums=1)(a, p)
  assert nre(np.asarray(got), want) < 2e-3


def test_orthogonal_iteration_finds_the_eigenvalues():
  u, _ = spd(16)
  values = np.geomspace(1, 1e4, 16)
  a = jnp.asarray(u @ np.diag(values) @ u.T, jnp.float32)
  v = jnp.eye(16)
  for _ in range(30):
    found, v = matrix.eigen_step(a, v)
  np.testing.assert_allclose(np.sort(found), values, rtol=1e-2)


def root_errors(spec, n=256, ratio=1000.0):
  """NRE of A^(-1/4): A quantized, U quantized, and U with Bjorck steps."""
  u, values = spd(n, ratio)
  want = u @ np.diag(values**-0.25) @ u.T
  store = optim.Eigen(spec)
  a = u @ np.diag(values) @ u.T
  off = jnp.asarray(a - np.diag(np.diag(a)), jnp.float32)
  naive = np.asarray(store.load(store.store(off)), np.float64)
  naive += np.diag(np.diag(a))
  w, x = np.linalg.eigh((naive + naive.T) / 2)
  power = np.maximum(w, values.min() * 1e-3) ** -0.25
  errors = [nre(x @ np.diag(power) @ x.T, want)]
  v = store.load(store.store(jnp.asarray(u, jnp.float32)))
  for steps in (0, 1):
    r = np.asarray(matrix.bjorck(v, steps), np.float64)
    errors.append(nre(r @ np.diag(values**-0.25) @ r.T, want))
  return errors


@pytest.mark.parametrize('ratio', [100.0, 1000.0])
def test_eigenvectors_beat_the_matrix_and_rectified_ones_beat_both(ratio):
  naive, u, rectified = root_errors('linear2_4@g64', ratio=ratio)
  assert naive > 3 * u
  assert rectified < u
  assert root_errors('dynamic4@g64', ratio=ratio)[1] > u


def test_rectification_before_roots():
  u, values = spd(256)
  store = optim.Eigen()
  v = store.load(store.store(jnp.asarray(u, jnp.float32)))
  want = u @ np.diag(values**-0.25) @ u.T

  def error(steps):
    r = matrix.bjorck(v, steps)
    a = np.asarray(
      matrix.eigen_power(jnp.asarray(values, jnp.float32), r, 1.0, 0.0),
      np.float64,
    )
    w, x = np.linalg.eigh(a)
    power = np.maximum(w, 1e-9) ** -0.25
    return nre(x @ np.diag(power) @ x.T, want)

  assert error(0) > 1.3 * error(4)
  assert error(4) == pytest.approx(0.062, rel=0.1)


def test_blocks_run_down_columns():
  q = optim.Eigen().store(jnp.zeros((128, 96)))
  assert q.scale.shape == (2, 96)
  assert isinstance(q, lb.PackedQTensor)


def test_4_bit_factors_take_a_seventh_of_the_bytes():
  p = {'w': jnp.zeros((128, 128))}
  bits = lambda f: optim.state_bits(optim.scale_by_shampoo(f).init(p))
  assert 6 < bits(optim.Exact()) / bits(optim.Eigen()) < 8


def test_small_preconditioners_stay_exact_and_vectors_pass():
  tx = optim.scale_by_shampoo(optim.Eigen())
  p = {'w': jnp.ones((16, 128)), 'b': jnp.ones(8)}
  state = tx.init(p)
  assert isinstance(state.left['w'], factors.ExactState)
  assert isinstance(state.right['w'], factors.EigenState)
  u, _ = tx.update(p, state)
  np.testing.assert_array_equal(u['b'], p['b'])
  np.testing.assert_allclose(
    jnp.linalg.norm(u['w']), jnp.linalg.norm(p['w']), rtol=1e-5
  )


def test_blocks_cover_any_shape():
  from lowbit.optim import preconditioned

  x = jnp.arange(7.0 * 3 * 5).reshape(7, 3, 5)
  cut = preconditioned._cut(x.shape, 4)
  assert cut.sizes == (4, 4)
  blocks = cut.split(x)
  assert blocks.shape == (8, 4, 4)
  np.testing.assert_array_equal(cut.merge(blocks), x)


def train(tx, steps):
  """Loss of a badly scaled least-squares problem after some steps."""
  rng = np.random.default_rng(0)
  scale = np.geomspace(1, 30, 64)
  x = jnp.asarray(rng.normal(size=(256, 64)) * scale, jnp.float32)
  target = jnp.asarray(rng.normal(size=(64, 64)), jnp.float32)
  loss = lambda w: jnp.mean((x @ (w - target)) ** 2)

  def step(carry, _):
    w, state = carry
    value, g = jax.value_and_grad(loss)(w)
    u, state = tx.update(g, state, w)
    return (optax.apply_updates(w, u), state), value

  w = jnp.zeros((64, 64))
  (w, _), _ = jax.jit(
    lambda w: jax.lax.scan(step, (w, tx.init(w)), None, steps)
  )(w)
  return float(loss(w))


def test_shampoo_in_4_bits_learns_like_32():
  options = {'statistics_every': 5, 'roots_every': 5}
  inner = optax.sgd(2e-4, 0.9)
  plain = train(inner, 100)
  exact = train(optim.shampoo(inner, **options), 100)
  four = train(optim.shampoo4bit(inner, **options), 100)
  assert exact < 0.7 * plain
  assert four < 0.8 * plain


def test_a_state_of_another_spec_is_refused():
  p = {'w': jnp.zeros((64, 64))}
  state = optim.scale_by_shampoo(optim.Eigen('dynamic4@g64')).init(p)
  with pytest.raises(ValueError, match='dynamic4@g64, where linear2_4@g64'):
    optim.scale_by_shampoo(optim.Eigen()).update(p, state)
