import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

import lowbit as lb
from lowbit import transforms

KEYS = jax.random.split(jax.random.key(0), 6)


def test_relu_mean_is_that_of_samples():
  beta = np.array([-2.0, -0.3, 0.0, 1.0, 5.0])
  gamma = np.array([1.0, 0.5, 2.0, -1.0, 0.2])
  normal = stats.norm.ppf((np.arange(100_000) + 0.5) / 100_000)
  want = np.maximum(beta + gamma * normal[:, None], 0).mean(0)
  got = transforms.relu_mean(
    jnp.asarray(beta, jnp.float32), jnp.asarray(gamma, jnp.float32)
  )
  np.testing.assert_allclose(got, want, atol=1e-4)
  np.testing.assert_allclose(got[2], 2 / np.sqrt(2 * np.pi), rtol=1e-6)
  still = transforms.relu_mean(jnp.asarray([-1.0, 2.0]), jnp.zeros(2))
  np.testing.assert_array_equal(still, [0, 2])


def test_correction_restores_the_mean():
  x = jax.nn.relu(jax.random.normal(KEYS[0], (512, 32)) + 0.4)
  w = jax.random.normal(KEYS[1], (32, 8))
  q = lb.fake_quantize(w, 'int3@channel', axis=0)
  b = transforms.bias_correction(w, q, jnp.mean(x, 0))
  off = lambda y: float(jnp.max(jnp.abs(jnp.mean(y - x @ w, 0))))
  assert off(x @ q + b[None]) < 1e-5
  assert off(x @ q) > 0.05
  # Without data, from the Gaussian before the ReLU.
  free = transforms.bias_correction(
    w, q, transforms.relu_mean(jnp.full(32, 0.4), jnp.ones(32))
  )
  assert off(x @ q + free[None]) < 0.3 * off(x @ q)


def test_absorbed_biases_leave_the_function():
  beta, gamma = jnp.linspace(-1.0, 8.0, 16), jnp.ones(16)
  w1 = jax.random.normal(KEYS[2], (16, 16)) / 4
  w2, b2 = jax.random.normal(KEYS[3], (16, 4)), jnp.ones(4)
  x = jax.random.normal(KEYS[4], (4096, 16))
  gamma = jnp.linalg.norm(w1, axis=0)
  forward = lambda b1, b2: jax.nn.relu(x @ w1 + b1[None]) @ w2 + b2[None]
  b1, b3 = transforms.absorb_high_bias(beta, w2, b2, beta, gamma)
  assert int(jnp.sum(b1 != beta)) > 6
  change = jnp.abs(forward(b1, b3) - forward(beta, b2))
  assert float(jnp.mean(change > 1e-4)) < 0.03
  high = jnp.max(jax.nn.relu(x @ w1 + beta[None]))
  assert float(jnp.max(jax.nn.relu(x @ w1 + b1[None]))) < 0.8 * float(high)
