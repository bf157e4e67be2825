"""Self-compression: bit widths fall under a size penalty, accuracy stays.

An MLP 64-128-128-10 on the embedded digits; each output channel has a learned
bit width, from 8, and step; the loss is cross-entropy plus gamma times the mean
bits a weight, 800 steps of Adam. Measured: bits a weight at rest (widths
rounded up) and test accuracy, against the same net in float32. So short a
training halves the bits; the paper's, far longer, leaves 3 %. The ablation sets
gamma to zero.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lowbit import optim
from lowbit.data import digits
from lowbit.experiment import claims, fit

WIDTHS = (64, 128, 128, 10)
GAMMA = 0.05


def forward(weights, images):
  x = images.reshape(images.shape[0], -1)
  for i, w in enumerate(weights):
    x = x @ w
    x = jax.nn.relu(x) if i < len(weights) - 1 else x
  return x


def compressed(variables):
  quantized = optim.self_compression.quantized
  return [
    quantized(w, d) for w, d in zip(variables['params'], variables['depth'])
  ]


def mean_bits(depths):
  total, alive = 0.0, None
  for d, fan_in in zip(depths, WIDTHS):
    total += optim.self_compression.size_bits(d, fan_in, alive=alive)
    alive = d.bits
  return total / weights()


def weights():
  return sum(a * b for a, b in itertools.pairwise(WIDTHS))


def stored(depths):
  bits = optim.self_compression.stored_bits
  return sum(bits(d, n) for d, n in zip(depths, WIDTHS)) / weights()


def measure(seed, ablated):
  data = digits.load()
  rng = np.random.default_rng(seed)
  shapes = list(itertools.pairwise(WIDTHS))
  params = [jnp.float32(rng.normal(size=s) * np.sqrt(2 / s[0])) for s in shapes]
  depth = [optim.self_compression.init(s[1], 8.0, -7.0) for s in shapes]
  arrays = jnp.asarray(data.train_images), jnp.asarray(data.train_labels)
  gamma = 0.0 if ablated else GAMMA

  def loss(variables, minibatch, step, key):
    del step, key
    images, labels = minibatch
    task = fit.cross_entropy(forward(compressed(variables), images), labels)
    return task + gamma * mean_bits(variables['depth'])

  def plain(params, minibatch, step, key):
    del step, key
    return fit.cross_entropy(forward(params, minibatch[0]), minibatch[1])

  variables = {'params': params, 'depth': depth}
  labels = {'params': 'weights', 'depth': 'depth'}
  tx = optax.multi_transform(
    {'weights': optax.adam(1e-3), 'depth': optax.adam(2e-2)}, labels
  )
  mine = fit.fit(loss, variables, arrays, tx, 800, 64, seed).variables
  exact = fit.fit(plain, params, arrays, optax.adam(1e-3), 800, 64, seed)
  images = jnp.asarray(data.test_images)
  answers = jnp.asarray(data.test_labels)
  accuracy = lambda w: 100 * float(fit.accuracy(forward(w, images), answers))
  score = accuracy(compressed(mine))
  return {
    'bits': stored(mine['depth']),
    'accuracy': score,
    'lost': accuracy(exact.variables) - score,
  }


def get_claim():
  return claims.Claim(
    key='selfcompress',
    title='Self-Compressing Neural Networks',
    reference='arXiv:2301.13142',
    recipe='optim.self_compression',
    says='learned widths under a size penalty shrink a net at its accuracy',
    published='float accuracy with 3 % of the bits (CIFAR-10)',
    ablation='no size penalty',
    measure=measure,
    holds=lambda n: n['bits'] < 5 and n['lost'] < 1.0,
    show='{bits:.2f} bits a weight, {accuracy:.1f} %, {lost:.2f} points below '
    'float32',
  )
