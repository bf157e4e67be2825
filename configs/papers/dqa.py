"""DQA: mixed widths that are cooled to two bits beat two bits from the start.

An MLP 64-32-32-10 on the embedded digits, all weights on the min-max grid of
two bits of each channel in the end, 600 steps of Adam from random weights. The
forward pass mixes 2, 4 and 8 bits by attention, temperature 100 to 0.03.
Measured: test accuracy at two bits, over that of the plain straight-through
training of the same steps, and the largest number of levels of a channel. The
ablation has two bits from the start. ResNets on CIFAR are not repeated here.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax

import lowbit as lb
from lowbit import quantize, recipes
from lowbit.data import digits
from lowbit.experiment import claims, fit
from lowbit.models import classifiers
from lowbit.quantize import bit_attention

MODEL = classifiers.MLP((32, 32))
STEPS = 600
PENALTY = 0.01  # lambda / S.
PLAIN = recipes.qat('int2z@channel', None, keep=())
MIXED = recipes.dqa()


@functools.cache
def train(recipe, seed):
  data = jax.tree.map(jnp.asarray, digits.load())
  arrays = data.train_images, data.train_labels
  params = MODEL.init(jax.random.key(seed), data.train_images[:1])['params']
  start = lb.init_quantizers(MODEL, params, recipe, data.train_images[:1])

  def loss(variables, batch, step, key):
    del step, key
    tree = variables['quantizers']
    logits = lb.apply(
      MODEL, variables['params'], batch[0], recipe=recipe, quantizers=tree
    )
    task = fit.cross_entropy(logits, batch[1])
    return task + PENALTY * bit_attention.cost(tree)

  def cool(variables, step):
    now = bit_attention.temperature(step, STEPS)
    return variables | {
      'quantizers': bit_attention.cool(variables['quantizers'], now)
    }

  variables = {'params': params, 'quantizers': start}
  tx = optax.adam(3e-3)
  run = fit.fit(loss, variables, arrays, tx, STEPS, 64, seed, cool)
  return run.variables


def measure(seed, ablated):
  data = jax.tree.map(jnp.asarray, digits.load())

  def score(params):
    logits = lb.apply(MODEL, params, data.test_images, recipe=PLAIN)
    return 100 * float(fit.accuracy(logits, data.test_labels))

  plain = score(train(PLAIN, seed)['params'])
  mine = train(PLAIN if ablated else MIXED, seed)
  two = quantize.fake_quantize(
    mine['params']['dense_1']['kernel'], 'int2z@channel', 0
  )
  levels = max(len(np.unique(column)) for column in np.asarray(two).T)
  return {
    'accuracy': score(mine['params']),
    'gain': score(mine['params']) - plain,
    'levels': levels,
  }


def get_claim():
  return claims.Claim(
    key='dqa',
    title='DNN Quantization with Attention',
    reference='arXiv:2103.13322',
    recipe='recipes.dqa',
    says='attention over 2, 4 and 8 bits, cooled to 2, trains better 2-bit '
    'nets than 2 bits from the start',
    published='2-bit ResNet-18 near float on CIFAR, above plain 2-bit training',
    ablation='two bits from the start',
    measure=measure,
    holds=lambda n: n['gain'] > 0.3 and n['levels'] <= 4,
    show='{accuracy:.1f} % at 2 bits, {gain:+.2f} points over plain training, '
    '{levels:.0f} levels',
    fast=False,
  )
