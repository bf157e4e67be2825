"""Scales that descend on a layer's loss."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lowbit as lb
from lowbit.recipes import learned_scales


def test_the_loss_falls_and_codes_are_nearest():
  w = jax.random.t(jax.random.key(0), 4.0, (16, 128))
  hessian = jnp.eye(128)
  error = lambda q: float(jnp.sum((lb.dequantize(q) - w) ** 2))
  q = learned_scales.learn_scales(w, hessian, 'nf3@g64', steps=100)
  first = lb.quantize(w, 'nf3@g64')
  assert error(q) < 0.95 * error(first)
  again = lb.quantize.quantize_with(w, q)
  np.testing.assert_array_equal(again.codes, q.codes)
  still = learned_scales.learn_scales(w, hessian, 'nf3@g64', 3, rate=0.0)
  np.testing.assert_array_equal(still.codes, first.codes)


@pytest.mark.parametrize('spec', ['mxfp4', 'int4z@g64'])
def test_bad_specs(spec):
  with pytest.raises(ValueError, match='learned in float32'):
    learned_scales.learn_scales(jnp.ones((4, 64)), jnp.eye(64), spec)
