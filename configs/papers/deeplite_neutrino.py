"""Deeplite Neutrino and DLRT: 2-bit QAT, run on bit planes in tiles.

A CNN on 8 x 8 digits: float, then its inner convolutions with 2-bit weights and
activations and learned steps (LSQ), trained; accuracy from bit planes, by AND
and popcount. The result does not depend on tiles. Inner layers take 1/16 of
float32. The ablation rounds the trained float model and trains no more. The
paper claims no accuracy of its own, and Arm's speed is not measured.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lowbit.data import digits
from lowbit.experiment import claims, fit
from lowbit.kernels import bitplane_matmul as bits
from lowbit.quantize import learned

WEIGHT, INPUT = learned.Lsq(2), learned.Lsq(2, signed=False)
A2, W2 = bits.Coding.unsigned(2), bits.Coding.signed(2)
SHAPES = {'first': (3, 3, 1, 16), 'a': (3, 3, 16, 32), 'b': (3, 3, 32, 32)}
INNER = ('a', 'b')


def conv(x, w):
  return jax.lax.conv_general_dilated(
    x, w, (1, 1), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC')
  )


def forward(params, images, inner, steps=None):
  """Logits; `inner` maps (x, weight, steps of the layer) to a convolution."""
  x = jax.nn.relu(conv(images, params['first']))
  seen = {}
  for name in INNER:
    seen[name] = x
    x = inner(x, params[name], None if steps is None else steps[name])
    x = jax.nn.relu(x)
    if name == 'a':
      b, h, w, c = x.shape
      x = jnp.mean(x.reshape(b, h // 2, 2, w // 2, 2, c), axis=(2, 4))
  return jnp.mean(x, axis=(1, 2)) @ params['head'], seen


def plain(x, w, steps):
  del steps
  return conv(x, w)


def fake(x, w, steps):
  axis = (-4, -3, -2, -1)
  return conv(INPUT(x, steps['x'], axis), WEIGHT(w, steps['w'], axis))


def packed(x, w, steps):
  """The same from bits: an integer convolution and one scale."""
  sx, sw = (steps[k]['step'].reshape(()) for k in ('x', 'w'))
  code_x = jnp.clip(jnp.rint(x / sx), 0, 3).astype(jnp.uint8)
  code_w = jnp.clip(jnp.rint(w / sw), -2, 1).astype(jnp.int32) & 3
  y = bits.bitplane_conv(code_x, code_w.astype(jnp.uint8), A2, W2)
  return y.astype(jnp.float32) * (sx * sw)


def loss(inner, variables, batch, step, key):
  del step, key
  steps = variables.get('quantizers')
  logits, _ = forward(variables['params'], batch[0], inner, steps)
  return fit.cross_entropy(logits, batch[1])


@functools.cache
def trained(seed):
  keys = jax.random.split(jax.random.key(seed), 4)
  params = {
    name: jax.random.normal(k, s) * (2 / np.prod(s[:3])) ** 0.5
    for k, (name, s) in zip(keys, SHAPES.items())
  }
  params['head'] = jax.random.normal(keys[3], (32, 10)) / 32**0.5
  return run(plain, {'params': params}, 500, 3e-3, seed)


def run(inner, variables, steps, rate, seed):
  d = digits.load()
  data = jnp.asarray(d.train_images), jnp.asarray(d.train_labels)
  tx = optax.adam(optax.cosine_decay_schedule(rate, steps))
  objective = functools.partial(loss, inner)
  return fit.fit(objective, variables, data, tx, steps, 64, seed).variables


def with_steps(variables, images):
  _, seen = forward(variables['params'], images, plain)
  axis = (-4, -3, -2, -1)
  steps = {
    n: {
      'x': INPUT.init(seen[n], axis),
      'w': WEIGHT.init(variables['params'][n], axis),
    }
    for n in INNER
  }
  return variables | {'quantizers': steps}


def tiles_agree(seed):
  """One product whole, and in tiles of rows, columns and depth."""
  rng = np.random.default_rng(seed)
  a, w = rng.integers(0, 4, (24, 192)), rng.integers(0, 4, (192, 20))

  def product(rows, columns, depth):
    return bits.bitplane_matmul(
      bits.pack_planes(jnp.asarray(a[rows, depth]), A2),
      bits.pack_planes(jnp.asarray(w[depth, columns]), W2, axis=-2),
    )

  whole = np.asarray(product(slice(None), slice(None), slice(None)))
  same = True
  for m, n, k in ((5, 7, 192), (24, 20, 50)):
    y = np.zeros_like(whole)
    for i in range(0, 24, m):
      for j in range(0, 20, n):
        for d in range(0, 192, k):
          at = slice(i, i + m), slice(j, j + n)
          y[at] += np.asarray(product(*at, slice(d, d + k)))
    same &= (y == whole).all()
  return float(same)


def measure(seed, ablated):
  d = digits.load()
  images, labels = jnp.asarray(d.test_images), jnp.asarray(d.test_labels)
  variables = trained(seed)
  score = lambda v, inner: float(
    fit.accuracy(
      forward(v['params'], images, inner, v.get('quantizers'))[0], labels
    )
  )
  low = with_steps(variables, jnp.asarray(d.train_images[:256]))
  if not ablated:
    low = run(fake, low, 500, 2e-3, seed)
  w = low['params']['b']
  planes = bits.pack_planes(
    jnp.zeros((w[..., 0].size, w.shape[3]), jnp.uint8), W2, axis=-2
  )
  return {
    'float': score(variables, plain),
    'low': score(low, packed),
    'fake': score(low, fake),
    'tiles': tiles_agree(seed),
    'size': planes.words.size / w.size,
  }


def get_claim():
  return claims.Claim(
    key='deeplite_neutrino',
    title='Accelerating Deep Learning Model Inference on Arm CPUs with '
    'Ultra-Low Bit Quantization and Runtime',
    reference='arXiv:2207.08820',
    recipe='quantize.learned.Lsq, kernels.bitplane_matmul.bitplane_conv',
    says='2-bit training keeps accuracy, and bit planes run it',
    published='within 2 to 3 points of float; 1/16 of the weights',
    ablation='rounded to 2 bits without training',
    measure=measure,
    holds=lambda n: (
      n['low'] > n['float'] - 0.03
      and abs(n['low'] - n['fake']) < 0.003
      and n['tiles'] == 1
      and n['size'] == 1 / 16
    ),
    show='accuracy {float:.1%} float, {low:.1%} from 2-bit planes; weights '
    '{size:.4f} of float32',
    seeds=(0, 1),
  )
