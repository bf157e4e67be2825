"""Short trainings: they learn, repeat, and train quantizers beside params."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import lowbit as lb
from lowbit import quantize
from lowbit.data import digits
from lowbit.experiment import fit
from lowbit.models import classifiers, super_resolution

DATA = digits.load()
TRAIN = (jnp.asarray(DATA.train_images), jnp.asarray(DATA.train_labels))


def loss(model, recipe=None):
  def run(v, batch, step, key):
    del step, key
    logits = lb.apply(
      model, v['params'], batch[0], recipe=recipe, quantizers=v.get('q')
    )
    return fit.cross_entropy(logits, batch[1])

  return run


def score(model, v, recipe=None):
  logits = lb.apply(
    model, v['params'], DATA.test_images, recipe=recipe, quantizers=v.get('q')
  )
  return float(fit.accuracy(logits, DATA.test_labels))


def test_the_split():
  assert DATA.train_images.shape == (1438, 8, 8, 1)
  assert DATA.test_images.shape == (359, 8, 8, 1)
  assert DATA.train_images.max() == 1.0
  assert sorted(np.unique(DATA.test_labels)) == list(range(10))


@pytest.mark.parametrize(
  ('model', 'least'),
  [
    (classifiers.MLP(), 0.93),
    (classifiers.CNN((8, 16)), 0.93),
    (classifiers.ViT(layers=1), 0.85),
  ],
  ids=['mlp', 'cnn', 'vit'],
)
def test_classifiers_learn_the_digits(model, least):
  params = model.init(jax.random.key(0), TRAIN[0][:1])['params']
  got = fit.fit(
    loss(model), {'params': params}, TRAIN, optax.adam(3e-3), 300, 64
  )
  assert score(model, got.variables) > least


def test_a_run_repeats_and_its_quantizers_train():
  model = classifiers.MLP((32,))
  params = model.init(jax.random.key(0), TRAIN[0][:1])['params']
  recipe = lb.Recipe('lsq', (lb.Rule('.*', quantize.Lsq(2), quantize.Lsq(4)),))
  q = lb.init_quantizers(model, params, recipe, TRAIN[0][:64])
  start = {'params': params, 'q': q}
  run = lambda seed: fit.fit(
    loss(model, recipe), start, TRAIN, optax.adam(3e-3), 200, 64, seed
  )
  first, again, other = run(0), run(0), run(1)
  np.testing.assert_array_equal(first.losses, again.losses)
  assert not np.array_equal(first.losses, other.losses)
  moved = jax.tree.map(
    lambda a, b: bool(jnp.any(a != b)), first.variables, start
  )
  assert all(jax.tree.leaves(moved))
  trained = score(model, first.variables, recipe)
  assert trained > score(model, start, recipe) + 0.5
  assert trained > 0.85


def test_a_run_in_pieces_is_the_run():
  model = classifiers.MLP((8,))
  params = model.init(jax.random.key(0), TRAIN[0][:1])['params']
  traces = []

  def counted(v, batch, step, key):
    traces.append(step)
    return loss(model)(v, batch, step, key) + 1e-3 * jnp.sin(step * 1.0)

  tx = optax.adam(3e-3)
  whole = fit.fit(counted, {'params': params}, TRAIN, tx, 20, 16)
  first = fit.fit(counted, {'params': params}, TRAIN, tx, 10, 16)
  once = len(traces)
  second = fit.fit(
    counted, first.variables, TRAIN, tx, 10, 16, start=10, state=first.state
  )
  assert len(traces) == once
  losses = jnp.concatenate([first.losses, second.losses])
  np.testing.assert_allclose(losses, whole.losses, rtol=1e-5)
  for a, b in zip(
    jax.tree.leaves((second.variables, second.state)),
    jax.tree.leaves((whole.variables, whole.state)),
  ):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_other_gradients_and_what_is_watched():
  scaled = optax.GradientTransformationExtraArgs(
    lambda params: jnp.int32(0),
    lambda g, s, p=None, *, by: (jax.tree.map(lambda x: x * by, g), s + 1),
  )

  def gradients(f, variables):
    value, grads = jax.value_and_grad(f)(variables)
    return value, grads, {'by': -0.5}

  square = lambda v, batch, step, key: v['w'] ** 2
  got = fit.fit(
    square,
    {'w': jnp.float32(1)},
    TRAIN,
    scaled,
    3,
    4,
    gradients=gradients,
    watch=lambda v, state: (v['w'], state),
  )
  # w - w = 0 after the first step.
  np.testing.assert_array_equal(got.watched[0], [0, 0, 0])
  np.testing.assert_array_equal(got.watched[1], [1, 2, 3])
  np.testing.assert_array_equal(got.losses, [1, 0, 0])


def test_super_resolution_shapes():
  model = super_resolution.SuperResolution(8, 1)
  run = lambda key, x: model.init_with_output(key, x)[0]
  got = jax.eval_shape(run, jax.random.key(0), jnp.zeros((2, 5, 6, 3)))
  assert got.shape == (2, 10, 12, 3)


def test_bad_batch():
  with pytest.raises(ValueError, match='`batch`'):
    fit.fit(lambda *a: 0.0, {}, TRAIN, optax.sgd(1.0), 1, 99999)
