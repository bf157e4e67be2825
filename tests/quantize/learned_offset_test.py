"""LSQ+: values and exact gradients, and the search for a start."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lowbit.quantize import learned_offset

X = np.asarray(1 + jax.random.normal(jax.random.key(0), (6, 50)))


@pytest.mark.parametrize('offset', [True, False])
@pytest.mark.parametrize('block', ['tensor', 'channel'])
def test_values_and_gradients(offset, block):
  q = learned_offset.LsqPlus(3, offset, block)
  shape = (1, 1) if block == 'tensor' else (6, 1)
  start = q.init(jnp.asarray(X), -1)
  chex.assert_shape([start['step'], start['offset']], shape)
  beta = -0.4 if offset else 0.0
  params = {'step': jnp.full(shape, 0.3), 'offset': jnp.full(shape, beta)}
  c = np.asarray(jax.random.normal(jax.random.key(1), X.shape))
  y, back = jax.vjp(lambda x, p: q(x, p, -1), jnp.asarray(X), params)
  dx, dp = back(jnp.asarray(c))
  low, high = (0, 7) if offset else (-4, 3)
  v = (X.astype(np.float64) - beta) / 0.3
  inside = (v >= low) & (v <= high)
  want = np.rint(np.clip(v, low, high)) * 0.3 + beta
  np.testing.assert_allclose(y, want, atol=1e-5)
  np.testing.assert_allclose(dx, c * inside, atol=1e-6)
  axes = (0, 1) if block == 'tensor' else (1,)
  factor = 1 / np.sqrt(X.size // np.prod(shape) * high)
  total = lambda g: factor * (c * g).sum(axis=axes, keepdims=True)
  local = np.where(inside, np.rint(v) - v, np.clip(v, low, high))
  np.testing.assert_allclose(dp['step'], total(local), rtol=1e-3, atol=1e-5)
  wanted = total(~inside) if offset else np.zeros(shape)
  np.testing.assert_allclose(dp['offset'], wanted, rtol=1e-3, atol=1e-5)


def test_the_start_is_the_best_of_the_shrunken_ranges():
  x = np.asarray(jax.random.t(jax.random.key(2), 4.0, (500,)))
  got = learned_offset.LsqPlus(3).init(jnp.asarray(x))

  def error(shrink):
    low, step = x.min() * shrink, (x.max() - x.min()) * shrink / 7
    y = np.rint(np.clip((x - low) / step, 0, 7)) * step + low
    return (np.abs(x - y) ** 2.4).sum()

  best = min(np.arange(80), key=lambda i: error(1 - i / 100))
  assert best > 5
  np.testing.assert_allclose(
    got['offset'].item(), x.min() * (1 - best / 100), rtol=1e-5
  )


def test_shifted_data_need_the_offset():
  x = jnp.asarray(10 + X)
  error = lambda q: float(jnp.mean((q(x, q.init(x, -1), -1) - x) ** 2))
  plain = learned_offset.LsqPlus(4, offset=False)
  assert error(learned_offset.LsqPlus(4)) < 0.1 * error(plain)


def test_zeros_and_bad_input():
  q = learned_offset.LsqPlus(2)
  zero = jnp.zeros((3, 4))
  np.testing.assert_array_equal(q(zero, q.init(zero, -1), -1), zero)
  with pytest.raises(ValueError, match='bits'):
    learned_offset.LsqPlus(1)
  with pytest.raises(ValueError, match='block'):
    learned_offset.LsqPlus(4, block='g64')
