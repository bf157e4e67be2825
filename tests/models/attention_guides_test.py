"""Guides of attention, against plain NumPy and on a decoder."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lowbit.models import attention_guides as guides
from lowbit.models import decoder

A, B = np.asarray(jax.random.normal(jax.random.key(0), (2, 3, 2, 5, 5)))
MODEL = decoder.Decoder(
  decoder.DecoderConfig(
    vocab=16, width=16, layers=2, heads=4, kv_heads=2, head_dim=8, hidden=16
  )
)
TOKENS = jnp.arange(24).reshape(2, 12) % 16
PARAMS = MODEL.init(jax.random.key(1), TOKENS)['params']


def run(params, model=MODEL):
  logits, state = model.apply(
    {'params': params}, TOKENS, mutable=['intermediates']
  )
  return logits, state['intermediates']


def test_entropy():
  want = np.mean(np.log(1 + A.var(-1)))
  np.testing.assert_allclose(guides.entropy(jnp.asarray(A)), want, rtol=1e-5)
  assert guides.entropy(jnp.full((3, 4), 7.0)) == 0
  q, k = [jnp.asarray(A)], [jnp.asarray(B)]
  want = -np.log(want + np.mean(np.log(1 + B.var(-1))))
  np.testing.assert_allclose(guides.entropy_loss(q, k), want, rtol=1e-5)
  wider = guides.entropy_loss([2 * q[0]], k)
  assert wider < guides.entropy_loss(q, k)
  flat = [jnp.ones((2, 4))]
  slope = jax.grad(lambda x: guides.entropy_loss([x], flat))(flat[0])
  assert np.all(np.isfinite(slope))


def test_likeness_sees_the_lower_triangle_of_each_head():
  mask = np.tril(np.ones((5, 5)))
  a, b = A * mask, B * mask
  cosine = (a * b).sum((-2, -1))
  cosine /= np.sqrt((a**2).sum((-2, -1)) * (b**2).sum((-2, -1)))
  got = guides.likeness(jnp.asarray(A), jnp.asarray(B))
  np.testing.assert_allclose(got, cosine.mean(), rtol=1e-5)
  above = A + 9 * np.triu(np.ones((5, 5)), 1).astype(np.float32)
  assert guides.likeness(jnp.asarray(above), jnp.asarray(3 * A)) > 1 - 1e-5
  zero = jnp.zeros_like(A)
  slopes = jax.grad(guides.likeness, argnums=(0, 1))(zero, jnp.asarray(A))
  assert np.all(np.isfinite(slopes[0]))
  assert not np.any(slopes[1])


def test_the_distribution_loss_pulls_maps_together():
  student, teacher = jnp.asarray(A), jnp.asarray(A + 0.3 * B)
  loss = lambda x: guides.distribution_loss([x, x], [teacher, x])
  want = -np.log((float(guides.likeness(student, teacher)) + 1) / 2)
  np.testing.assert_allclose(loss(student), want, rtol=1e-4)
  step = student - 0.5 * jax.grad(loss)(student)
  assert guides.likeness(step, teacher) > guides.likeness(student, teacher)
  with pytest.raises(ValueError, match='one shape'):
    guides.likeness(student, teacher[..., :4, :4])
  with pytest.raises(ValueError, match='shorter'):
    guides.distribution_loss([student], [])


def test_the_decoder_sows_what_attention_sees_and_says_the_same():
  logits, state = run(PARAMS)
  np.testing.assert_array_equal(logits, MODEL.apply({'params': PARAMS}, TOKENS))
  q, k, scores = (guides.sown(state, n) for n in ('queries', 'keys', 'scores'))
  assert len(q) == len(k) == len(scores) == 2
  for a, b, s in zip(q, k, scores):
    assert a.shape == (2, 12, 2, 2, 8)
    want = np.einsum('btkgc,bskc->bkgts', a, b) / np.sqrt(8)
    np.testing.assert_allclose(s, want, rtol=1e-4, atol=1e-5)
  with pytest.raises(ValueError, match="no 'values'"):
    guides.sown(state, 'values')


def test_scanned_layers_sow_stacked():
  config = MODEL.config.__class__(
    **{**vars(MODEL.config), 'scan_layers': True, 'remat': True}
  )
  _, state = run(decoder.stack(PARAMS), decoder.Decoder(config))
  _, plain = run(PARAMS)
  (got,) = guides.sown(state, 'scores')
  want = jnp.stack(guides.sown(plain, 'scores'))
  np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


def test_training_by_entropy_makes_queries_and_keys_vary():
  def loss(params):
    _, state = run(params)
    return guides.entropy_loss(
      guides.sown(state, 'queries'), guides.sown(state, 'keys')
    )

  tx = optax.sgd(0.1)
  params, state, first = PARAMS, tx.init(PARAMS), loss(PARAMS)
  for _ in range(3):
    updates, state = tx.update(jax.grad(loss)(params), state)
    params = optax.apply_updates(params, updates)
  assert loss(params) < first - 0.01
