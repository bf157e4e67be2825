"""Lifting weights: it begins as the identity, and learns."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import lowbit as lb
from lowbit.experiment import fit
from lowbit.models import dequantizer

MODEL = dequantizer.Dequantizer(2, 32)
W = jax.random.normal(jax.random.key(0), (256, 16))
LOW = lb.fake_quantize(W, 'int2@tensor')
AIMS = (lambda w: lb.fake_quantize(w, 'int4@tensor'), None)


def test_it_lifts_better_than_the_identity_and_nearly_the_best():
  params = MODEL.init(jax.random.key(1), LOW)
  np.testing.assert_array_equal(MODEL.apply(params, LOW), [LOW, LOW])
  loss = lambda p, batch, step, key: dequantizer.reconstruction(
    MODEL.apply(p, batch[0]), batch[1], AIMS
  )
  got = fit.fit(loss, params, (LOW, W), optax.adam(3e-3), 200, 128).variables
  error = lambda y: float(jnp.mean((y - W) ** 2))
  found = error(MODEL.apply(got, LOW)[-1])
  assert found < 0.8 * error(LOW)
  # Independent weights: no answer beats the mean of the weights of each code.
  best = sum(
    W[code == LOW].size * np.var(W[code == LOW]) for code in np.unique(LOW)
  )
  assert found < 1.1 * best / W.size


def test_reconstruction_by_hand():
  steps = jnp.stack([LOW, LOW])
  want = np.mean((LOW - AIMS[0](W)) ** 2) + np.mean((LOW - W) ** 2)
  got = dequantizer.reconstruction(steps, W, AIMS)
  np.testing.assert_allclose(got, want, rtol=1e-5)
  with pytest.raises(ValueError, match='entries'):
    dequantizer.reconstruction(steps, W, AIMS[:1])
