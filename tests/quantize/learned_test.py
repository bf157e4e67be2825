"""Each learned quantizer: its values and its exact gradients."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lowbit.quantize import learned

X = 2 * np.asarray(jax.random.normal(jax.random.key(0), (8, 64)))


def pull(quantizer, params, axis=-1):
  """y, the gradients of sum(c y) in x and params, and the c used."""
  x = jnp.asarray(X)
  c = jax.random.normal(jax.random.key(1), x.shape)
  y, back = jax.vjp(lambda x, p: quantizer(x, p, axis), x, params)
  return jax.tree.map(np.asarray, (y, *back(c), c))


@pytest.mark.parametrize('signed', [True, False])
@pytest.mark.parametrize('block', ['tensor', 'channel'])
def test_lsq(signed, block):
  q = learned.Lsq(3, signed, block)
  params = q.init(jnp.asarray(X), -1)
  shape = (1, 1) if block == 'tensor' else (8, 1)
  chex.assert_shape(params['step'], shape)
  y, dx, dp, c = pull(q, params)
  s = np.asarray(params['step'], np.float64)
  v = np.asarray(X, np.float64) / s
  low, high = (-4, 3) if signed else (0, 7)
  inside = (v >= low) & (v <= high)
  want = np.rint(np.clip(v, low, high)) * s
  np.testing.assert_allclose(y, want, rtol=1e-5, atol=1e-6)
  np.testing.assert_allclose(dx, c * inside, rtol=1e-6)
  local = np.where(inside, np.rint(v) - v, np.clip(v, low, high))
  axes = (0, 1) if block == 'tensor' else (1,)
  share = X.size if block == 'tensor' else X.shape[1]
  want = np.sum(c * local, axis=axes, keepdims=True) / np.sqrt(share * high)
  np.testing.assert_allclose(dp['step'], want, rtol=2e-4, atol=1e-5)


def test_lsq_starts_where_the_paper_says_and_zeros_are_no_trap():
  q = learned.Lsq(4)
  want = 2 * jnp.mean(jnp.abs(X)) / jnp.sqrt(7.0)
  np.testing.assert_allclose(
    q.init(jnp.asarray(X), -1)['step'].item(), want, rtol=1e-6
  )
  params = q.init(jnp.zeros((4, 4)), -1)
  assert float(params['step'].item()) == 1.0


def test_pact():
  q = learned.Pact(2, start=1.5)
  y, dx, dp, c = pull(q, q.init(jnp.asarray(X)))
  above = np.asarray(X) >= 1.5
  np.testing.assert_allclose(
    y, np.rint(np.clip(X, 0, 1.5) / 0.5) * 0.5, atol=1e-6
  )
  np.testing.assert_array_equal(dx, c * ((X >= 0) & ~above))
  np.testing.assert_allclose(dp['clip'], np.sum(c * above), rtol=1e-5)


def test_pams():
  q = learned.Pams(4)
  params = {'clip': jnp.float32(1.7)}
  y, dx, dp, c = pull(q, params)
  inside = np.abs(X) <= 1.7
  np.testing.assert_allclose(
    y, np.rint(np.clip(X, -1.7, 1.7) / 1.7 * 7) * 1.7 / 7, atol=1e-5
  )
  np.testing.assert_allclose(dx, c * inside, rtol=1e-6)
  local = np.where(inside, (y - X) / 1.7, np.sign(X))
  np.testing.assert_allclose(dp['clip'], np.sum(c * local), rtol=1e-4)


@pytest.mark.parametrize(
  ('bits', 'levels'),
  [
    (1.58, [-2 / 3, 0, 2 / 3]),
    (2, [-0.75, -0.25, 0.25, 0.75]),
    (1, [-0.5, 0.5]),
  ],
)
def test_elastic(bits, levels):
  q = learned.Elastic(bits)
  params = {'clip': jnp.full((8, 1), 2.0)}
  y, dx, dp, c = pull(q, params)
  got = np.unique(np.round(np.asarray(y) / 2, 5))
  np.testing.assert_allclose(got, levels, atol=1e-5)
  inside = np.abs(X) / 2 <= 0.99
  np.testing.assert_allclose(dx, c * inside, rtol=1e-6)
  top = 1.0 if bits == 1.58 else levels[-1]
  local = np.where(inside, (y - X) / 2, np.sign(X) * top)
  want = np.sum(c * local, axis=1, keepdims=True) / np.sqrt(64 * top)
  np.testing.assert_allclose(dp['clip'], want, rtol=2e-4, atol=1e-5)


def test_elastic_at_three_bits_has_eight_even_levels():
  y = learned.Elastic(3)(jnp.asarray(X), {'clip': jnp.full((8, 1), 3.0)})
  np.testing.assert_allclose(
    np.unique(np.round(np.asarray(y) / 3 * 8)), [-7, -5, -3, -1, 1, 3, 5, 7]
  )


def test_dorefa():
  y, dx, _, c = pull(learned.Dorefa(2), {})
  assert len(np.unique(np.round(y, 5))) <= 4
  assert float(np.abs(y).max()) == pytest.approx(1)
  t = np.tanh(np.asarray(X))
  np.testing.assert_allclose(
    dx, c * (1 - t**2) / np.abs(t).max(), rtol=1e-3, atol=1e-5
  )


@pytest.mark.parametrize(
  'q',
  [
    learned.Lsq(2),
    learned.Pams(2),
    learned.Elastic(2),
    learned.Lsq(2, block='channel'),
  ],
)
def test_training_the_parameters_lowers_the_error(q):
  x = jax.random.t(jax.random.key(3), 3.0, (4, 256))
  start = q.init(x, -1)
  size = lambda t: jax.tree.map(lambda p: p * jnp.exp(t), start)
  error = lambda t: jnp.sum((q(x, size(t), -1) - x) ** 2)
  descend = lambda t, _: (t - 1e-4 * jax.grad(error)(t), None)
  first = jnp.float32(0.7)  # Twice the first guess.
  trained, _ = jax.lax.scan(descend, first, length=100)
  assert float(error(trained)) < 0.9 * float(error(first))


@pytest.mark.parametrize(
  ('build', 'hint'),
  [
    (lambda: learned.Lsq(0), 'bits'),
    (lambda: learned.Lsq(4, block='g64'), 'block'),
    (lambda: learned.Elastic(5), 'Lsq'),
    (lambda: learned.Pams(1), 'bits'),
    (lambda: learned.Dorefa(0), 'bits'),
    (lambda: learned.Pact(99), 'bits'),
  ],
)
def test_bad_input(build, hint):
  with pytest.raises(ValueError, match=hint):
    build()


def test_bfloat16_keeps_its_dtype():
  for q in (
    learned.Lsq(4),
    learned.Pact(4),
    learned.Elastic(2),
    learned.Dorefa(2),
  ):
    x = jnp.asarray(X, jnp.bfloat16)
    assert q(x, q.init(x, -1), -1).dtype == jnp.bfloat16


def test_a_step_below_zero_has_finite_gradients():
  x = jnp.asarray([-3.0, 0.0, 0.5, 20.0])
  for step in (-0.1, 0.0):
    run = lambda s, x=x: jnp.sum(learned.Lsq(4)(x, {'step': s}))
    y, grad = jax.value_and_grad(run)(jnp.full(1, step))
    assert jnp.isfinite(y)
    assert jnp.all(jnp.isfinite(grad))
