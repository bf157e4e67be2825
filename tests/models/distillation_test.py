"""Distillation losses against plain NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lowbit.models import distillation

A, B = np.asarray(jax.random.normal(jax.random.key(0), (2, 3, 4, 5, 6)))


def test_soft_labels():
  t = 2.0
  p = np.exp(B / t) / np.exp(B / t).sum(-1, keepdims=True)
  q = np.exp(A / t) / np.exp(A / t).sum(-1, keepdims=True)
  want = t**2 * np.mean(np.sum(p * np.log(p / q), axis=-1))
  got = distillation.soft_labels(jnp.asarray(A), jnp.asarray(B), t)
  np.testing.assert_allclose(got, want, rtol=1e-5)
  g = jax.grad(distillation.soft_labels, argnums=(0, 1))
  mine, other = g(jnp.asarray(A), jnp.asarray(B), t)
  np.testing.assert_allclose(mine, t * (q - p) / A[..., 0].size, atol=1e-6)
  assert not np.any(other)


def test_spatial_distance():
  def unit(f):
    energy = (f**2).sum(-1).reshape(3, -1)
    return energy / np.sqrt((energy**2).sum(1, keepdims=True))

  want = np.mean(((unit(A) - unit(B)) ** 2).sum(1))
  got = distillation.spatial_distance(jnp.asarray(A), jnp.asarray(B))
  np.testing.assert_allclose(got, want, rtol=1e-5)
  # Channels may be signed, mixed by a rotation and scaled: the map stays.
  turn = np.linalg.qr(np.random.default_rng(0).normal(size=(6, 6)))[0]
  turned = jnp.asarray(3 * A @ turn, jnp.float32)
  same = distillation.spatial_distance(turned, jnp.asarray(A))
  np.testing.assert_allclose(same, 0, atol=1e-10)
  zero = jnp.zeros_like(turned)
  slope = jax.grad(distillation.spatial_distance)(zero, turned)
  assert np.all(np.isfinite(slope))


def test_bad_shapes():
  with pytest.raises(ValueError, match='one shape'):
    distillation.soft_labels(jnp.zeros((2, 3)), jnp.zeros((2, 4)))
