"""DenseShift's weights: levels, gradients, init."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lowbit as lb
from lowbit.quantize import sign_scale


@pytest.mark.parametrize('bits', [2, 3, 4])
def test_levels_are_those_of_the_format(bits):
  count = 1 + sign_scale.growths(bits)
  patterns = np.array(list(itertools.product([-1, 1], repeat=count)))
  w = sign_scale.weights(jnp.asarray(patterns.T, jnp.float32))
  want = lb.formats.get(f'shift{bits}').values()
  np.testing.assert_array_equal(np.unique(w), want)
  assert not (w == 0).any()


def test_the_last_growths_in_a_row_are_the_power():
  steps = np.array([[1, 1, 1], [1, -1, 1], [-1, 1, 1], [1, 1, -1]]).T
  latents = jnp.asarray(np.concatenate([-np.ones((1, 4)), steps]), jnp.float32)
  np.testing.assert_array_equal(sign_scale.weights(latents), [-8, -2, -4, -1])


def test_gradients_by_hand():
  latents = 0.1 * jax.random.normal(jax.random.key(0), (4, 500))
  w, back = jax.vjp(sign_scale.weights, latents)
  c = jax.random.normal(jax.random.key(1), w.shape)
  got = np.asarray(back(c)[0])
  h = np.asarray(latents[1:]) > 0
  power = [np.zeros(500)]
  for t in range(3):
    power.append(h[t] * (power[-1] + 1))
  w, c = np.asarray(w, np.float64), np.asarray(c, np.float64)
  np.testing.assert_allclose(got[0], c * 2 * np.abs(w), rtol=1e-5)
  for t in range(3):
    later = np.prod(h[t + 1 :], axis=0)
    want = c * w * np.log(2) * (power[t] + 1) * later
    np.testing.assert_allclose(got[t + 1], want, rtol=1e-5, atol=1e-7)


def test_random_latents_use_every_level():
  latents = sign_scale.init(jax.random.key(0), (4096,), 3)
  assert latents.shape == (4, 4096)
  assert float(latents.std()) == pytest.approx(1e-3, rel=0.05)
  magnitude = jnp.abs(sign_scale.weights(latents))
  share = [float((magnitude == m).mean()) for m in (1, 2, 4, 8)]
  # Half the rows of fair bits end in a zero, a quarter in 01, ...
  np.testing.assert_allclose(share, [1 / 2, 1 / 4, 1 / 8, 1 / 8], atol=0.03)


@pytest.mark.parametrize('bits', [1, 5])
def test_widths_out_of_range(bits):
  with pytest.raises(ValueError, match=r'`bits` must lie in 2\.\.4, got'):
    sign_scale.init(jax.random.key(0), (3,), bits)
