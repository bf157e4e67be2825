"""Fixed point with traced lengths: the same values as the static format."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

import lowbit as lb
from lowbit import formats, quantize
from lowbit.quantize import traced_fixed

X = 3 * jax.random.normal(jax.random.key(0), (4096,))


def test_every_word_is_the_format_of_its_lengths_in_one_program():
  traces = []

  @jax.jit
  def run(x, word, fraction):
    traces.append(1)
    return traced_fixed.round_fixed(x, word, fraction)

  special = jnp.asarray([0.0, jnp.inf, -jnp.inf, 1e30, -1e30, 0.75, -0.125])
  for word in range(2, 17):
    for fraction in (-3, 0, 2, word - 1, 20):
      x = jnp.concatenate([X, X * 2.0 ** (word - fraction - 3), special])
      got = run(x, jnp.float32(word), jnp.float32(fraction))
      want = formats.FixedPoint(word, fraction).round(x)
      np.testing.assert_array_equal(got, want)
  assert len(traces) == 1


def test_long_words_keep_float32():
  got = traced_fixed.round_fixed(X, jnp.float32(32), jnp.float32(24))
  np.testing.assert_allclose(got, X, atol=2.0**-25)
  near = traced_fixed.round_fixed(X, jnp.float32(7.9999), jnp.float32(4.0001))
  np.testing.assert_array_equal(near, traced_fixed.round_fixed(X, 8, 4))
  assert jnp.isnan(traced_fixed.round_fixed(jnp.float32(jnp.nan), 8, 4))
  with pytest.raises(TypeError, match='floating-point'):
    traced_fixed.round_fixed(jnp.arange(3), 8, 4)


def test_stochastic_rounding_is_unbiased():
  x = jnp.asarray([0.3, -0.3, 0.06, 1.91, -1.99, 0.5])
  keys = jax.random.split(jax.random.key(1), 100_000)
  draw = lambda key: traced_fixed.round_fixed(x, 5, 3, key)
  draws = np.asarray(jax.vmap(draw)(keys), np.float64)
  grid = np.round(np.asarray(x) * 8) / 8
  spread = np.maximum(draws.std(0) / np.sqrt(len(keys)), 1e-12)
  inside = np.asarray(x) < 15 / 8  # What lies above saturates.
  z = np.abs(draws.mean(0) - np.asarray(x))[inside] / spread[inside]
  assert z[:-1].max() < 4
  np.testing.assert_array_equal(draws[:, -1], grid[-1])
  np.testing.assert_array_equal(draws[:, 3], 15 / 8)
  assert np.all(draws * 8 == np.rint(draws * 8))


def test_gradients_pass_straight_through_and_spare_the_lengths():
  q = quantize.TracedFixed(5, 3, stochastic=False)
  c = jax.random.normal(jax.random.key(2), X.shape)
  pull = jax.grad(lambda x, p: jnp.sum(c * q(x, p)), argnums=(0, 1))
  dx, dp = pull(X, q.init(X))
  np.testing.assert_array_equal(dx, c)
  assert not any(jax.tree.leaves(dp))


def test_a_layer_gets_fresh_keys_and_needs_them():
  layer, x = nn.Dense(8), X.reshape(64, 64)
  params = layer.init(jax.random.key(0), x)['params']
  how = quantize.TracedFixed(6, 3)
  recipe = lb.Recipe('fixed', (lb.Rule('.*', how, how),))
  tree = lb.init_quantizers(layer, params, recipe, x)
  run = lambda tree, seed: lb.apply(
    layer,
    params,
    x,
    recipe=recipe,
    quantizers=tree,
    rngs={'lowbit': jax.random.key(seed)},
  )
  a, again, b = run(tree, 0), run(tree, 0), run(tree, 1)
  np.testing.assert_array_equal(a, again)
  assert float(jnp.mean((a != b).astype(jnp.float32))) > 0.5
  # The words are data: 24 bits give the float layer.
  fine = jax.tree.map(lambda _: jnp.float32(20), tree)
  fine['kernel'] = {
    kind: {'word': jnp.float32(28), 'fraction': jnp.float32(20)}
    for kind in fine['kernel']
  }
  want = layer.apply({'params': params}, x)
  np.testing.assert_allclose(run(fine, 0), want, atol=1e-3)
  assert float(jnp.max(jnp.abs(a - want))) > 0.01
  with pytest.raises(ValueError, match="rngs={'lowbit'"):
    lb.apply(layer, params, x, recipe=recipe, quantizers=tree)


def test_bad_input():
  with pytest.raises(ValueError, match=r'2\.\.32'):
    quantize.TracedFixed(40, 3)
  with pytest.raises(TypeError, match='word'):
    quantize.TracedFixed(8.5, 3)
  q = quantize.TracedFixed()
  with pytest.raises(ValueError, match='stochastic'):
    q(X, q.init(X))
