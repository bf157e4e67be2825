"""AdaPT: layers find their words, and train in them as in float.

An MLP 64-64-64-10 on the embedded digits, 600 steps of SGD with momentum;
weights and inputs in a layer's fixed point, rounded stochastically, L1 and L2
in the loss. All layers begin at <4, 3>. Every 25 to 100 steps PushDown takes
the shortest word whose histogram is within 0.01 nats of the weights', and
PushUp adds bits by the diversity of gradients, with 4 in front for the inputs.
Measured: the mean word over weights and steps, and test accuracy below that of
the same training in float32. The ablation stays at <4, 3>. (<8, 4> would do for
digits: that it is enough is what a training does not know beforehand.) CIFAR
nets and their speed-ups are not repeated here.
"""

import functools

import jax
import jax.numpy as jnp
import optax

import lowbit as lb
from lowbit import recipes
from lowbit.data import digits
from lowbit.experiment import adaptive_words, claims, fit
from lowbit.models import classifiers
from lowbit.quantize import adaptive_fixed

MODEL = classifiers.MLP((64, 64))
RECIPE = recipes.adapt_fixedpoint(4, 3)
STEPS, BATCH = 600, 64
L1, L2 = 1e-5, 1e-4
TX = optax.sgd(0.1, 0.9)


def arrays():
  data = jax.tree.map(jnp.asarray, digits.load())
  return (data.train_images, data.train_labels), data


@functools.cache
def start(seed):
  images = arrays()[0][0][:1]
  params = MODEL.init(jax.random.key(seed), images)['params']
  return {
    'params': params,
    'quantizers': lb.init_quantizers(MODEL, params, RECIPE, images),
  }


def score(variables, **how):
  data = arrays()[1]
  logits = lb.apply(MODEL, variables['params'], data.test_images, **how)
  return 100 * float(fit.accuracy(logits, data.test_labels))


def exact_loss(variables, batch, step, key):
  del step, key
  logits = MODEL.apply({'params': variables['params']}, batch[0])
  task = fit.cross_entropy(logits, batch[1])
  return task + adaptive_words.penalty(variables, L1, L2)


def loss(variables, batch, step, key):
  del step
  logits = lb.apply(
    MODEL,
    variables['params'],
    batch[0],
    recipe=RECIPE,
    quantizers=variables['quantizers'],
    rngs={'lowbit': key},
  )
  task = fit.cross_entropy(logits, batch[1])
  return task + adaptive_words.penalty(variables, L1, L2)


@functools.cache
def exact(seed):
  """Test accuracy of float32, per cent."""
  data = arrays()[0]
  run = fit.fit(exact_loss, start(seed), data, TX, STEPS, BATCH, seed)
  return score(run.variables)


def measure(seed, ablated):
  controller = None if ablated else adaptive_fixed.Controller()
  run = adaptive_words.train(
    loss, start(seed), arrays()[0], TX, STEPS, BATCH, seed, controller
  )
  mine = score(
    run.variables,
    recipe=RECIPE,
    quantizers=run.variables['quantizers'],
    rngs={'lowbit': jax.random.key(seed)},
  )
  return {
    'exact': exact(seed),
    'lost': exact(seed) - mine,
    'word': adaptive_words.mean_word(run.words, run.variables['params']),
  }


def get_claim():
  return claims.Claim(
    key='adapt_fixedpoint',
    title='AdaPT: Adaptive Precision Training',
    reference='arXiv:2107.13490',
    recipe='recipes.adapt_fixedpoint',
    says='words that are decided anew from histograms and gradients train '
    'like float32 in less than 16 bits',
    published='accuracy +0.98 points over float32 on average, 2.33 x faster '
    'inference',
    ablation='the first words <4, 3> stay',
    measure=measure,
    holds=lambda n: n['lost'] < 1.0 and n['word'] < 16,
    show='{lost:.2f} points below float32 ({exact:.1f} %), {word:.1f} bits',
  )
