"""Two widths of activations, chosen token by token."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lowbit as lb
from lowbit.quantize import token_bits

X = jax.random.normal(jax.random.key(0), (2, 6, 32))


def test_each_token_has_the_width_of_its_mask():
  q = token_bits.TokenBits()
  np.testing.assert_array_equal(
    q(X, q.init(X), -1), lb.fake_quantize(X, 'int8@token')
  )
  mask = jnp.asarray([[0, 1, 0, 1, 1, 0], [1, 1, 0, 0, 0, 1]], jnp.float32)
  got = np.asarray(q(X, {'low': mask}, -1))
  for b, t in np.ndindex(2, 6):
    spec = 'int4@token' if mask[b, t] else 'int8@token'
    np.testing.assert_array_equal(got[b, t], lb.fake_quantize(X[b, t], spec))
  slope = jax.grad(lambda x: jnp.sum(q(x, {'low': mask}, -1)))(X)
  np.testing.assert_array_equal(slope, np.ones(X.shape))


def test_the_least_important_tokens():
  importance = jnp.asarray([[3.0, 1.0, 2.0, 5.0, 4.0]])
  np.testing.assert_array_equal(
    token_bits.least(importance, 0.4), [[0, 1, 1, 0, 0]]
  )
  np.testing.assert_array_equal(
    token_bits.least(jnp.zeros((1, 4))), [[1, 1, 0, 0]]
  )
  assert float(jnp.sum(token_bits.least(importance, 1.0))) == 5
  with pytest.raises(ValueError, match='share'):
    token_bits.least(importance, 1.5)


def test_importance_is_the_first_column():
  scores = np.asarray(jax.random.normal(jax.random.key(1), (2, 3, 5, 7)))
  want = sum(scores[:, h, :, 0] for h in range(3))
  got = token_bits.first_token_attention(jnp.asarray(scores))
  np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


def test_one_scale_for_all_tokens_is_refused():
  with pytest.raises(ValueError, match='Use @token'):
    token_bits.TokenBits('int8@tensor')
