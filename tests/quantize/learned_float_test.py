import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lowbit as lb
from lowbit.quantize import learned_float

X = jax.random.normal(jax.random.key(0), (64, 256))


@pytest.mark.parametrize('m', [2, 3, 4, 5])
def test_it_is_the_finite_float_with_a_scale(m):
  fmt = lb.formats.get(f'e{7 - m}m{m}finite')
  clip = jnp.float32(3.3)
  got = learned_float.learned_float(X, clip, jnp.float32(m))
  scale = clip / fmt.max
  want = fmt.round(X / scale) * scale
  # Ties may fall either way through the real bias.
  assert float(jnp.mean(jnp.abs(got - want) > 1e-5)) < 1e-3


def test_gradients_lower_the_error():
  def loss(parameters):
    y = learned_float.learned_float(X, parameters[0], parameters[1])
    return jnp.mean((X - y) ** 2)

  start = jnp.array([1.5, 3.0])  # It clips too much.
  step = jax.jit(lambda p: p - jnp.array([1.0, 0.0]) * jax.grad(loss)(p))
  p = start
  for _ in range(60):
    p = step(p)
  assert float(loss(p)) < 0.05 * float(loss(start))
  grad = jax.grad(loss)(jnp.array([4.3, 3.0]))
  assert np.isfinite(np.asarray(grad)).all()
  # More mantissa bits help a Gaussian: M = 5 is best.
  assert float(grad[1]) < 0
