"""Weights as trained bits, and trained bit widths."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lowbit.optim import bitwise, self_compression

KEY = jax.random.key(0)


def test_weights_are_sign_and_magnitude():
  latents = jnp.asarray([[-1.0, 1, 1], [1, 1, -1], [-1, 1, -1]])
  got = bitwise.weights(latents, 0.5)
  np.testing.assert_array_equal(got, [0.5, -1.5, 0.0])
  assert bitwise.weights(latents, 1.0)[2] == 0  # -0 is one of two zeros.


def test_gradients_of_bits_are_their_weights():
  latents = jnp.asarray([[-1.0], [1.0], [-1.0]])
  g = jax.grad(lambda x: bitwise.weights(x, 0.5)[0])(latents)
  # d/db_s = -2 magnitude alpha; d/db_k = 2^k alpha sign.
  np.testing.assert_array_equal(g[:, 0], [-1.0, 0.5, 1.0])


@pytest.mark.parametrize('bits', [2, 4, 8])
def test_random_bits_have_the_variance_of_he(bits):
  w = bitwise.weights(
    bitwise.init(KEY, (400, 100), bits), bitwise.he_alpha(bits, 100)
  )
  assert float(jnp.var(w)) == pytest.approx(2 / 100, rel=0.03)


def test_a_payload_comes_back_and_only_low_bits_carry_it():
  latents = bitwise.init(KEY, (32, 32), 8)
  mask = bitwise.trainable(8, 3)
  np.testing.assert_array_equal(np.flatnonzero(mask), [0, 6, 7])
  payload = bytes(range(256)) * 2
  carrying = bitwise.embed(latents, mask, payload)
  assert bitwise.extract(carrying, mask, len(payload)) == payload
  kept = np.flatnonzero(mask)
  np.testing.assert_array_equal(carrying[kept], latents[kept])
  assert bitwise.capacity_bytes(latents, mask) == 5 * 1024 // 8
  with pytest.raises(ValueError, match='hold 640'):
    bitwise.embed(latents, mask, bytes(641))
  g = bitwise.only(jnp.ones_like(latents), mask)
  assert float(jnp.sum(g)) == 3 * 1024
  planes = bitwise.to_planes(latents)
  assert planes.dtype == jnp.uint8
  with pytest.raises(ValueError, match=r'1\.\.8'):
    bitwise.trainable(8, 9)
  with pytest.raises(ValueError, match=r'2\.\.32'):
    bitwise.he_alpha(1, 10)


def test_whole_widths_are_integers():
  w = jnp.asarray(np.random.default_rng(0).normal(size=(50, 3)), jnp.float32)
  depth = self_compression.Depth(
    jnp.asarray([4.0, 2.0, 0.0]), jnp.asarray([-2.0, 0.0, -1.0])
  )
  got = np.asarray(self_compression.quantized(w, depth))
  w = np.asarray(w)
  np.testing.assert_array_equal(
    got[:, 0], np.clip(np.round(w[:, 0] * 4), -8, 7) / 4
  )
  np.testing.assert_array_equal(got[:, 1], np.clip(np.round(w[:, 1]), -2, 1))
  np.testing.assert_array_equal(got[:, 2], 0)


def test_widths_learn_from_clipped_weights_only():
  depth = self_compression.init(1, bits=3.0, exponent=0.0)
  grad = jax.grad(
    lambda d, w: jnp.sum(self_compression.quantized(w, d)), argnums=0
  )
  inside = grad(depth, jnp.asarray([[0.3], [1.2]]))
  assert float(inside.bits[0]) == 0
  above = grad(depth, jnp.asarray([[9.0]]))  # d(2^(b-1) - 1)/db.
  assert float(above.bits[0]) == pytest.approx(4 * np.log(2), rel=1e-6)
  below = grad(depth, jnp.asarray([[-9.0]]))
  assert float(below.bits[0]) == pytest.approx(-4 * np.log(2), rel=1e-6)
  # The step's gradient: value / scale inside minus the straight-through part.
  e = float(grad(depth, jnp.asarray([[1.2]])).exponent[0])
  assert e == pytest.approx((1.0 - 1.2) * np.log(2), rel=1e-5)


def test_size_counts_live_inputs():
  depth = self_compression.Depth(jnp.asarray([2.5, -1.0, 3.0]), jnp.zeros(3))
  assert float(self_compression.size_bits(depth, 4, kernel=9)) == 36 * 5.5
  alive = jnp.asarray([1.0, 0.0, 2.0, -1.0])
  size = self_compression.size_bits(depth, 4, 9, alive)
  assert float(size) == 18 * 5.5
  assert self_compression.stored_bits(depth, 36) == 36 * (3 + 0 + 3)
  g = jax.grad(lambda d: self_compression.size_bits(d, 4))(depth)
  np.testing.assert_array_equal(g.bits, [4, 0, 4])
  with pytest.raises(ValueError, match='3 channels'):
    self_compression.quantized(jnp.zeros((2, 3)), self_compression.init(4))
