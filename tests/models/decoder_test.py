import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lowbit.models import decoder, loss

CONFIG = decoder.DecoderConfig(
  width=32, layers=2, heads=4, kv_heads=2, head_dim=8, hidden=40
)
TOKENS = jax.random.randint(jax.random.key(0), (2, 12), 0, 256)


def build(**changes):
  model = decoder.Decoder(dataclasses.replace(CONFIG, **changes))
  return model, model.init(jax.random.key(1), TOKENS)['params']


def test_causality():
  model, params = build()
  run = lambda t: model.apply({'params': params}, t)
  other = TOKENS.at[:, 7].add(1)
  a, b = run(TOKENS), run(other)
  chex.assert_trees_all_close(a[:, :7], b[:, :7], atol=1e-6)
  assert float(jnp.abs(a[:, 7:] - b[:, 7:]).min(-1).max()) > 0


@pytest.mark.parametrize(
  'changes',
  [
    {'scan_layers': True},
    {'remat': True},
    {'scan_layers': True, 'remat': True},
  ],
)
def test_scan_and_remat_equal_the_plain_model(changes):
  model, params = build()
  want = model.apply({'params': params}, TOKENS)
  other, _ = build(**changes)
  moved = decoder.stack(params) if 'scan_layers' in changes else params
  got = jax.jit(other.apply)({'params': moved}, TOKENS)
  chex.assert_trees_all_close(got, want, atol=1e-5)
  if 'scan_layers' in changes:
    chex.assert_trees_all_equal(decoder.unstack(moved), params)


def test_tied_and_bfloat16():
  model, params = build(tied=True)
  assert 'head' not in params
  assert model.apply({'params': params}, TOKENS).shape == (2, 12, 256)
  model, params = build(dtype='bfloat16')
  assert model.apply({'params': params}, TOKENS).dtype == jnp.float32


def test_rope_depends_on_distance():
  x = jax.random.normal(jax.random.key(0), (1, 1, 1, 8))
  r = decoder.rope(jnp.tile(x, (1, 9, 1, 1)), 100.0)[0, :, 0]
  dots = r @ r.T
  for d in range(8):
    line = np.diagonal(np.asarray(dots), d)
    np.testing.assert_allclose(line, line[0], rtol=1e-4)


def test_loss_is_cross_entropy():
  logits = jnp.zeros((2, 12, 256))
  nats = loss.next_token_nats(logits, TOKENS)
  assert nats.shape == (2, 11)
  chex.assert_trees_all_close(nats, jnp.full((2, 11), jnp.log(256.0)))


def test_bad_sizes():
  with pytest.raises(ValueError, match='multiple of `kv_heads`'):
    decoder.DecoderConfig(heads=3, kv_heads=2)
  with pytest.raises(ValueError, match='even'):
    decoder.DecoderConfig(head_dim=7)
  with pytest.raises(ValueError, match='positive'):
    decoder.DecoderConfig(layers=0)
  with pytest.raises(ValueError, match='no layers_0'):
    decoder.stack({})
  with pytest.raises(ValueError, match='no layers'):
    decoder.unstack({})
