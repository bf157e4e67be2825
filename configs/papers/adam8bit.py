"""8-bit Adam: block-wise dynamic codes follow 32-bit Adam, linear ones do not.

Two measurements. First, moments over the many scales of training are stored and
read back, and the update m / (sqrt(v) + 1e-8) is compared: its median relative
error in blocks of 2048 (0.084 in a NumPy prototype). Second, an MLP learns the
embedded digits with the states of both hidden layers in 8 bits; its loss after
300 steps is compared with that of 32-bit Adam, same data in the same order.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lowbit import optim
from lowbit.data import digits
from lowbit.experiment import claims, fit
from lowbit.models import classifiers

DYNAMIC = optim.Moments('dynamic8@g2048', 'udynamic8@g2048')
LINEAR = optim.Moments('int8@tensor', 'int8@tensor', allow_zero=True)


def update_error(moments, seed):
  rng = np.random.default_rng(seed)
  n = 2**17
  draw = lambda: rng.normal(size=n) * np.exp(1.5 * rng.normal(size=n)) * 1e-3
  m, v = jnp.float32(draw()), jnp.float32(draw() ** 2 + 1e-10)
  stored = lambda kind, x: kind.decode(kind.encode(x), x.shape)
  update = lambda m, v: m / (jnp.sqrt(v) + 1e-8)
  want = update(m, v)
  got = update(stored(moments.first, m), stored(moments.second, v))
  return float(jnp.median(jnp.abs(got - want) / jnp.abs(want)))


def final_loss(tx, seed):
  data = digits.load()
  model = classifiers.MLP((128, 128))
  images = jnp.asarray(data.train_images)
  labels = jnp.asarray(data.train_labels)
  params = model.init(jax.random.key(seed), images[:1])['params']

  def loss(params, minibatch, step, key):
    del step, key
    images, labels = minibatch
    return fit.cross_entropy(model.apply({'params': params}, images), labels)

  fitted = fit.fit(loss, params, (images, labels), tx, 300, 64, seed)
  return float(loss(fitted.variables, (images, labels), 0, None))


def measure(seed, ablated):
  moments = LINEAR if ablated else DYNAMIC
  exact = final_loss(optax.adam(1e-3), seed)
  mine = final_loss(optim.adam8bit(1e-3, moments=moments), seed)
  return {'error': update_error(moments, seed), 'ratio': mine / exact}


def get_claim():
  return claims.Claim(
    key='adam8bit',
    title='8-bit Optimizers via Block-wise Quantization',
    reference='arXiv:2110.02861',
    recipe='optim.adam8bit',
    says='block-wise dynamic 8-bit moments train like 32-bit ones',
    published='32-bit quality with 2 bytes of state a parameter, not 8',
    ablation='8-bit linear codes, one scale a tensor',
    measure=measure,
    holds=lambda n: n['error'] < 0.12 and 0.9 < n['ratio'] < 1.1,
    fast=False,
    show='update error {error:.3g}, loss {ratio:.3g} x that of 32 bits',
  )
