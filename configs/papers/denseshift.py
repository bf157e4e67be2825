"""DenseShift: signs flip, and powers of two without zero learn like floats.

An MLP on the embedded digits, two hidden layers [64, 64] with normalized
outputs, 400 steps of SGD with momentum. Their weights are 3-bit signed powers
of two, a sign and three growths a weight, each the sign of a latent that starts
as N(0, 1e-3^2). Measured: the share of the signs of the first of them that end
other than they began, the test loss, and its ratio to that of float weights.
The ablation starts from N(0, 0.1^2), where weights freeze. That costs no loss
here: a net of this size learns the digits with signs that hardly move, and with
ternary weights as well, so that neither accuracy is a part of the claim.
"""

import functools

import jax
import jax.numpy as jnp
import optax

from lowbit.data import digits
from lowbit.experiment import claims, fit
from lowbit.quantize import sign_scale

WIDTH, BITS, STEPS = 64, 3, 400
HIDDEN = ('hidden_0', 'hidden_1')


def forward(params, x, weights):
  x = jax.nn.relu(jnp.matmul(x, params['in']))
  for name in HIDDEN:
    y = jnp.matmul(x, weights(params[name]))
    deviation = jnp.std(y, axis=0, keepdims=True) + 1e-5
    x = jax.nn.relu((y - jnp.mean(y, axis=0, keepdims=True)) / deviation)
  return jnp.matmul(x, params['out'])


def start(seed, make):
  keys = jax.random.split(jax.random.key(seed), 4)
  params = {name: make(key) for name, key in zip(HIDDEN, keys)}
  params['in'] = 0.18 * jax.random.normal(keys[2], (64, WIDTH))
  params['out'] = 0.12 * jax.random.normal(keys[3], (WIDTH, 10))
  return params


def train(seed, make, weights):
  """Share of signs that changed, and the test loss in nats."""
  data = digits.load()
  flat = lambda images: jnp.asarray(images.reshape(len(images), -1))
  params = start(seed, make)

  def loss(params, minibatch, step, key):
    del step, key
    images, labels = minibatch
    return fit.cross_entropy(forward(params, images, weights), labels)

  tx = optax.sgd(optax.cosine_decay_schedule(0.1, STEPS), 0.9)
  batches = flat(data.train_images), jnp.asarray(data.train_labels)
  end = fit.fit(loss, params, batches, tx, STEPS, 64, seed).variables
  signs = [jnp.sign(weights(p[HIDDEN[0]])) for p in (params, end)]
  test = flat(data.test_images), jnp.asarray(data.test_labels)
  flips = jnp.mean((signs[0] != signs[1]).astype(jnp.float32))
  return float(flips), float(loss(end, test, 0, None))


@functools.cache
def float_loss(seed):
  make = lambda key: jax.random.normal(key, (WIDTH, WIDTH))
  return train(seed, make, lambda w: w)[1]


def measure(seed, ablated):
  deviation = 0.1 if ablated else 1e-3
  shape = (WIDTH, WIDTH)
  latents = lambda key: sign_scale.init(key, shape, BITS, deviation)
  flips, loss = train(seed, latents, sign_scale.weights)
  return {'flips': flips, 'loss': loss, 'ratio': loss / float_loss(seed)}


def get_claim():
  return claims.Claim(
    key='denseshift',
    title='DenseShift',
    reference='arXiv:2208.09708',
    recipe='quantize.sign_scale',
    says='latents of low variance let the signs of zero-free power-of-two '
    'weights flip, and 3 bits learn like floats',
    published='ImageNet ResNet-18 70.62 % at 3 bits, direction only here',
    ablation='latents start at a deviation of 0.1',
    measure=measure,
    holds=lambda n: n['flips'] > 0.3 and n['ratio'] < 1.1,
    show='{flips:.0%} of signs flipped, test loss {loss:.3f} nats, {ratio:.2f} '
    'x float',
  )
