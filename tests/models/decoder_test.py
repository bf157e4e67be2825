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


@pytest.mark.parametrize('whole', [True, False])
@pytest.mark.parametrize('factor', [1.0, 4.0, 32.0])
def test_yarn_is_its_formula(factor, whole):
  """Kept where it turned 32 times in the old context, slowed below 1 turn."""
  base, half, context = 1e4, 64, 2048
  theta = base ** (-np.arange(half) / half)
  # Index, as a fraction, of the frequency with so many turns.
  at = lambda turns: np.interp(
    np.log(turns),
    np.log(context * theta / (2 * np.pi))[::-1],
    np.arange(half)[::-1],
  )
  first, last = at(32.0), at(1.0)
  if whole:
    first, last = np.floor(first), np.ceil(last)
  slowed = np.clip((np.arange(half) - first) / (last - first), 0, 1)
  want = theta * (1 - slowed) + theta / factor * slowed
  found = rotary.yarn_factors(base, 2 * half, factor, context, whole=whole)
  np.testing.assert_allclose(theta / np.asarray(found), want, rtol=1e-9)
  assert found[0] == 1
  np.testing.assert_allclose(found[-1], factor)


def test_yarn_scales_what_it_turns():
  assert rotary.yarn_scale(1.0) == rotary.yarn_scale(0.5) == 1
  np.testing.assert_allclose(rotary.yarn_scale(np.e), 1.1)
  np.testing.assert_allclose(rotary.yarn_scale(np.e, 2.0, 1.0), 1.2 / 1.1)
  np.testing.assert_allclose(rotary.yarn_scale(np.e, 2.0), 1.1)
  x = jax.random.normal(jax.random.key(0), (1, 9, 1, 8))
  grown = rotary.rope(x, 100.0, scale=1.5)
  chex.assert_trees_all_close(grown, 1.5 * rotary.rope(x, 100.0), rtol=1e-6)
  model, params = build()
  run = lambda **changes: decoder.Decoder(
    dataclasses.replace(model.config, **changes)
  ).apply({'params': params}, TOKENS)
  # Queries and keys both, as if the temperature were their square's.
  kernels = jax.tree_util.tree_map_with_path(
    lambda p, x: 1.5 * x if p[-2].key in ('query', 'key') else x, params
  )
  want = model.apply({'params': kernels}, TOKENS)
  chex.assert_trees_all_close(run(rope_scale=1.5), want, atol=1e-4)
  assert np.abs(run() - want).max() > 1e-3


def test_a_dynamic_base_grows_with_the_text_only():
  base = lambda length: rotary.dynamic_base(1e4, 64, length, 4.0, 100)
  assert base(1) == base(100) == 1e4
  # At twice the context, the slowest of 32 is 4 * 2 - 3 times slower.
  slowest = lambda b: b ** (-31 / 32)
  np.testing.assert_allclose(slowest(1e4) / slowest(base(200)), 5.0)
  model, params = build()
  cut = TOKENS.shape[1] - 2
  grown = decoder.Decoder(
    dataclasses.replace(model.config, rope_dynamic=(2.0, cut))
  )
  run = lambda m, t: m.apply({'params': params}, t)
  short = TOKENS[:, :cut]
  chex.assert_trees_all_equal(run(grown, short), run(model, short))
  assert np.abs(run(grown, TOKENS) - run(model, TOKENS)).max() > 1e-4


def test_rotary_options_that_do_not_fit():
  with pytest.raises(ValueError, match='must be positive, got'):
    decoder.DecoderConfig(head_dim=4, rope_factors=(1.0, 0.0))
  with pytest.raises(ValueError, match='`rope_scale` -1'):
    decoder.DecoderConfig(rope_scale=-1.0)
  with pytest.raises(ValueError, match='a positive factor and a context'):
    decoder.DecoderConfig(rope_dynamic=(2.0, 0))
  with pytest.raises(ValueError, match='factor of at least 1'):
    decoder.DecoderConfig(rope_dynamic=(0.5, 8))
  with pytest.raises(ValueError, match='`slow` must lie between'):
    rotary.yarn_factors(1e4, 8, 2.0, 64, fast=1.0, slow=2.0)
