"""Words that follow the training: decided when due, for each layer."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import lowbit as lb
from lowbit import recipes
from lowbit.data import digits
from lowbit.experiment import adaptive_words, fit
from lowbit.models import classifiers
from lowbit.quantize import adaptive_fixed

DATA = digits.load()
TRAIN = (jnp.asarray(DATA.train_images), jnp.asarray(DATA.train_labels))
MODEL = classifiers.MLP((16,))
RECIPE = recipes.adapt_fixedpoint(4, 3)
TX = optax.sgd(0.1, 0.9)


def start():
  params = MODEL.init(jax.random.key(0), TRAIN[0][:1])['params']
  tree = lb.init_quantizers(MODEL, params, RECIPE, TRAIN[0][:1])
  return {'params': params, 'quantizers': tree}


def loss(v, batch, step, key):
  del step
  logits = lb.apply(
    MODEL,
    v['params'],
    batch[0],
    recipe=RECIPE,
    quantizers=v['quantizers'],
    rngs={'lowbit': key},
  )
  return fit.cross_entropy(logits, batch[1])


def train(controller, steps=100):
  return adaptive_words.train(
    loss, start(), TRAIN, TX, steps, 32, controller=controller
  )


def test_words_are_found_and_are_those_of_the_last_weights():
  controller = adaptive_fixed.Controller((10, 20))
  got = train(controller)
  assert set(got.words) == {'dense_0/kernel', 'head/kernel'}
  assert got.losses.shape == (100,)
  for path, words in got.words.items():
    assert words.shape == (10,)
    assert words[0] == 4
    assert words[1:].min() > 8
    layer, leaf = path.split('/')
    node = got.variables['quantizers'][layer][leaf]
    assert node['weight'] == node['activation']
  fixed = train(None)
  assert all(np.all(words == 4) for words in fixed.words.values())
  assert got.losses[-10:].mean() < fixed.losses[-10:].mean() / 2


class Slow(adaptive_fixed.Controller):
  """One bit more, and then thirty steps of rest."""

  def decide(self, layer, w, g, strategy):
    assert g >= 1
    assert strategy in adaptive_fixed.STRATEGIES
    return layer._replace(word=layer.word + 1, lookback=30)


def test_a_layer_is_left_alone_until_its_lookback_is_over():
  got = train(Slow((10, 40)))
  for words in got.words.values():
    np.testing.assert_array_equal(words, [4, 5, 5, 5, 6, 6, 6, 7, 7, 7])


def test_the_run_in_pieces_is_a_plain_run_while_words_stay():
  got = train(None)
  plain = fit.fit(loss, start(), TRAIN, TX, 100, 32)
  np.testing.assert_allclose(got.losses, plain.losses, rtol=1e-4)
  words = set(map(float, jax.tree.leaves(got.variables['quantizers'])))
  assert words == {4.0, 3.0}


def test_the_penalty_and_the_mean_word():
  v = start()
  l1, l2 = 0.1, 0.3
  want = 0.0
  for layer in ('dense_0', 'head'):
    w = np.asarray(v['params'][layer]['kernel'])
    want += l1 * np.abs(w).sum() + l2 / 2 * 4 / 32 * (w**2).sum()
  got = adaptive_words.penalty(v, l1, l2)
  np.testing.assert_allclose(got, want, rtol=1e-5)
  # A word is no parameter: the optimizer must not move it.
  slope = jax.grad(adaptive_words.penalty)(v, l1, l2)['quantizers']
  assert not any(jax.tree.leaves(slope))
  words = {'dense_0/kernel': np.full(4, 8), 'head/kernel': np.asarray([4, 20])}
  mean = adaptive_words.mean_word(words, v['params'])
  assert mean == pytest.approx((8 * 64 * 16 + 12 * 160) / (64 * 16 + 160))


def test_bad_steps():
  with pytest.raises(ValueError, match='multiple of the shortest lookback'):
    train(None, 30)
