"""PAMS: a learned clip of activations in a super-resolution net of 4 bits.

A residual net of 16 channels and 2 blocks doubles 4 x 4 means of the embedded
digits to 8 x 8. Trained in float for 400 steps; then its body has 4-bit weights
(absmax) and activations for 300 steps, with L1 and the distance of the body's
spatial map from the float net's (pixels in [0, 1], so that the paper's factor
1000 for 0 .. 255 is 4). The clip starts at the largest magnitude of 64 images,
in place of the paper's first epoch. Measured: PSNR on the test digits, and what
it exceeds the same training by that takes the largest magnitude of each batch.
The ablation is that one.
"""

import functools

import jax
import jax.numpy as jnp
import optax

import lowbit as lb
from lowbit import recipes
from lowbit.data import digits
from lowbit.experiment import claims, fit
from lowbit.models import distillation, super_resolution

MODEL = super_resolution.SuperResolution(16, 2)
LAST = 'body_1_b'


def pairs(images):
  b, h, w, _ = images.shape
  small = images.reshape(b, h // 2, 2, w // 2, 2, 1).mean(axis=(2, 4))
  return jnp.asarray(small), jnp.asarray(images)


def run(params, images, recipe=None, quantizers=None):
  """The larger images, and the features of the body."""
  y, state = lb.apply(
    MODEL,
    params,
    images,
    recipe=recipe,
    quantizers=quantizers,
    mutable=['intermediates'],
    capture_intermediates=lambda module, _: module.name == LAST,
  )
  return y, state['intermediates'][LAST]['__call__'][0]


def psnr(y, images):
  return float(-10 * jnp.log10(jnp.mean((jnp.clip(y, 0, 1) - images) ** 2)))


@functools.cache
def teacher(seed):
  data = digits.load()
  small, large = pairs(data.train_images)
  params = MODEL.init(jax.random.key(seed), small[:1])['params']
  loss = lambda p, batch, step, key: jnp.mean(
    jnp.abs(MODEL.apply({'params': p}, batch[0]) - batch[1])
  )
  tx = optax.adam(3e-3)
  return fit.fit(loss, params, (small, large), tx, 400, 32, seed).variables


@functools.cache
def score(seed, recipe):
  """PSNR of 4-bit training, dB."""
  data, exact = digits.load(), teacher(seed)
  small, large = pairs(data.train_images)
  start = lb.init_quantizers(MODEL, exact, recipe, small[:64])

  def loss(variables, batch, step, key):
    del step, key
    tree = variables['quantizers']
    y, features = run(variables['params'], batch[0], recipe, tree)
    _, wanted = run(exact, batch[0])
    apart = distillation.spatial_distance(features, wanted)
    return jnp.mean(jnp.abs(y - batch[1])) + 4 * apart

  variables = {'params': exact, 'quantizers': start}
  tx = optax.adam(1e-3)
  got = fit.fit(loss, variables, (small, large), tx, 300, 32, seed).variables
  small, large = pairs(data.test_images)
  y, _ = run(got['params'], small, recipe, got['quantizers'])
  return psnr(y, large)


def measure(seed, ablated):
  learned, absmax = recipes.pams(4), recipes.pams(4, learned=False)
  small, large = pairs(digits.load().test_images)
  mine = score(seed, absmax if ablated else learned)
  exact = psnr(MODEL.apply({'params': teacher(seed)}, small), large)
  return {
    'exact': exact,
    'psnr': mine,
    'gain': mine - score(seed, absmax),
  }


def get_claim():
  return claims.Claim(
    key='pams',
    title='PAMS: Quantized Super-Resolution via Parameterized Max Scale',
    reference='arXiv:2011.04212',
    recipe='recipes.pams',
    says='a learned clip of activations beats their largest magnitude in '
    'super-resolution nets',
    published='EDSR x4, Set5: 32.12 dB at 8 bits, 32.10 in float',
    ablation='the largest magnitude of each batch',
    measure=measure,
    holds=lambda n: n['gain'] > 0.05,
    show='{psnr:.2f} dB at 4 bits ({exact:.2f} in float), {gain:+.2f} dB over '
    'the largest magnitude',
    fast=False,
  )
