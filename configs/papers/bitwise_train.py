"""Bit-wise training: three trained bits carry the accuracy, the rest a payload.

LeNet-300-100 on the embedded digits, weights of 8 bits, each bit a trained real
number; only the sign and the two highest magnitude bits are trained, the other
five stay random. Then random bits are written over the five. Measured: test
accuracy, and what the payload changes. The ablation writes over the trained
bits of as many planes as fit (sign and two highest) instead.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lowbit import optim
from lowbit.data import digits
from lowbit.experiment import claims, fit

BITS, TOP = 8, 3
WIDTHS = (64, 300, 100, 10)


def forward(latents, images):
  x = images.reshape(images.shape[0], -1)
  for i, (planes, fan_in) in enumerate(zip(latents, WIDTHS)):
    alpha = optim.bitwise.he_alpha(BITS, fan_in)
    x = x @ optim.bitwise.weights(planes, alpha)
    x = jax.nn.relu(x) if i < len(latents) - 1 else x
  return x


def overwrite(latents, planes, rng):
  """Random bits in some planes."""
  draw = lambda x: jnp.float32(rng.choice([-0.01, 0.01], size=x[planes].shape))
  return [x.at[planes].set(draw(x)) for x in latents]


def measure(seed, ablated):
  data = digits.load()
  rng = np.random.default_rng(seed)
  keys = jax.random.split(jax.random.key(seed), 3)
  shapes = itertools.pairwise(WIDTHS)
  latents = [optim.bitwise.init(k, s, BITS) for k, s in zip(keys, shapes)]
  mask = optim.bitwise.trainable(BITS, TOP)
  only = optax.stateless(
    lambda g, p: jax.tree.map(lambda x: optim.bitwise.only(x, mask), g)
  )

  def loss(latents, minibatch, step, key):
    del step, key
    return fit.cross_entropy(forward(latents, minibatch[0]), minibatch[1])

  arrays = jnp.asarray(data.train_images), jnp.asarray(data.train_labels)
  tx = optax.chain(only, optax.adam(1e-3))
  trained = fit.fit(loss, latents, arrays, tx, 600, 64, seed).variables
  images = jnp.asarray(data.test_images)
  labels = jnp.asarray(data.test_labels)
  accuracy = lambda x: float(fit.accuracy(forward(x, images), labels))
  planes = np.flatnonzero(mask if ablated else ~mask)
  before = accuracy(trained)
  return {
    'accuracy': 100 * before,
    'lost': 100 * (before - accuracy(overwrite(trained, planes, rng))),
    'payload': 100 * (1 - TOP / BITS),
  }


def get_claim():
  return claims.Claim(
    key='bitwise_train',
    title='Training DNNs bit-wise',
    reference='arXiv:2202.09571',
    recipe='optim.bitwise',
    says='untrained low bits can hold any data without losing accuracy',
    published='sign and two bits carry the accuracy; loss below 0.5 points',
    ablation='the trained bits are overwritten instead',
    measure=measure,
    holds=lambda n: n['accuracy'] > 94 and n['lost'] < 1.0,
    show='{accuracy:.1f} %, {lost:.2f} points lost by overwriting; '
    '{payload:.0f} % of the bits free',
  )
