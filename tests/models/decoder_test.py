import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lowbit.models import decoder, loss, rotary

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
  r = rotary.rope(jnp.tile(x, (1, 9, 1, 1)), 100.0)[0, :, 0]
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
  with pytest.raises(ValueError, match='4 numbers'):
    decoder.DecoderConfig(head_dim=8, rope_factors=(1.0,))
  with pytest.raises(ValueError, match='must not be negative'):
    decoder.DecoderConfig(window=-1)
  with pytest.raises(ValueError, match='Unroll'):
    decoder.DecoderConfig(window=4, window_from=1, scan_layers=True)
  with pytest.raises(ValueError, match='`low` must be below'):
    rotary.llama3_factors(1e4, 8, 8.0, 4.0, 1.0, 64)


def changed_from(model, params, position):
  """Which outputs move with the token at a position, of the first sequence."""
  run = lambda t: model.apply({'params': params}, t)
  other = TOKENS.at[:, position].add(1)
  return np.abs(run(TOKENS) - run(other))[0].max(-1) > 1e-6


def test_a_window_hides_what_lies_before_it():
  model, params = build(window=3, layers=1)
  moved = changed_from(model, params, 4)
  assert moved.tolist() == [4 <= t < 7 for t in range(12)]
  model, params = build(window=3, window_from=1)  # Layer 0 sees all.
  assert changed_from(model, params, 0).all()
  model, params = build(window=3)  # Two layers see two windows.
  assert changed_from(model, params, 0).tolist() == [t < 5 for t in range(12)]


def test_biases_and_head_norms_are_params_of_their_own():
  _, params = build(qkv_bias=True, qk_norm=True)
  layer = params['layers_0']
  assert layer['attention']['query']['bias'].shape == (32,)
  assert layer['attention']['key_norm']['scale'].shape == (8,)
  assert 'bias' not in layer['attention']['out']
  _, params = build(out_bias=True, mlp_bias=True)
  layer = params['layers_0']
  assert 'bias' in layer['attention']['out']
  assert 'bias' not in layer['attention']['value']
  assert all('bias' in layer['mlp'][n] for n in ('gate', 'up', 'down'))


def test_head_norms_hide_the_scale_of_queries_and_keys():
  model, params = build(qk_norm=True)
  kernel = params['layers_0']['attention']['query']['kernel']
  grown = jax.tree.map(lambda x: x * 8 if x is kernel else x, params)
  a, b = (model.apply({'params': p}, TOKENS) for p in (params, grown))
  chex.assert_trees_all_close(a, b, atol=1e-4)


def test_rotary_factors():
  x = jax.random.normal(jax.random.key(0), (1, 9, 1, 8))
  slow = rotary.rope(x, 100.0, factors=(2.0,) * 4)
  # Half the speed: the position 8 is turned as 4 was.
  want = rotary.rope(x[:, 8:], 100.0, start=4)
  chex.assert_trees_all_close(slow[:, 8:], want, atol=1e-5)
  factors = rotary.llama3_factors(5e5, 128, 8.0, 1.0, 4.0, 8192)
  assert factors[0] == 1
  assert factors[-1] == 8
  assert list(factors) == sorted(factors)
  assert 1 < factors[32] < 8
