"""DeepliteRT: a fake-quantized CNN becomes bit-serial convolutions, exactly.

Weights of bipolar bits, activations of unsigned ones: sums of AND and popcount,
and the popcount of the activations as a correction. Convolutions against
integer ones; a small CNN, fake-quantized and then packed, with the same logits;
bits at rest; word operations. The ablation leaves out the correction, as if the
weights were unsigned. Speed on Arm is not part of this claim.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from lowbit.experiment import claims
from lowbit.kernels import bitplane_matmul as bits
from lowbit.kernels.bitplane_matmul import planes, reference

A2, W2 = bits.Coding.unsigned(2), bits.Coding.bipolar(2)


def integer_conv(x, w):
  """Convolution of numbers in float32, exact for these sizes."""
  return jax.lax.conv_general_dilated(
    x.astype(jnp.float32),
    w.astype(jnp.float32),
    (1, 1),
    'SAME',
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    precision='highest',
  )


def packed_conv(x, w, ablated):
  coding = dataclasses.replace(W2, offset=0) if ablated else W2
  return bits.bitplane_conv(x, w, A2, coding)


# Channels, filters, kernel: words that are full, cut, and crossed.
SHAPES = [(1, 3, 3), (16, 8, 1), (33, 5, 3), (7, 2, 5), (32, 4, 3), (40, 1, 1)]


def exact_convolutions(rng, ablated):
  """Share of shapes whose packed and integer results are equal."""
  same = 0
  for c, n, size in SHAPES:
    x = jnp.asarray(rng.integers(0, 4, (1, 5, 4, c)), jnp.uint8)
    w = jnp.asarray(rng.integers(0, 4, (size, size, c, n)), jnp.uint8)
    want = integer_conv(x, W2.values(w))
    same += bool(jnp.all(packed_conv(x, w, ablated) == want))
  return same / len(SHAPES)


def network(rng):
  """Latent weights of conv, conv, conv, head; steps of inner layers."""
  shapes = [(3, 3, 1, 16), (3, 3, 16, 32), (3, 3, 32, 32), (32, 10)]
  scale = lambda s: rng.normal(size=s) / np.sqrt(np.prod(s[:-1]))
  return [jnp.asarray(scale(s), jnp.float32) for s in shapes]


def power_of_two(x):
  """The nearest above: both sides then add the same numbers exactly."""
  return jnp.exp2(jnp.ceil(jnp.log2(x)))


def logits(weights, images, inner):
  """First and last layer in float, the others by `inner`."""
  x = jax.nn.relu(integer_conv(images, weights[0]))
  for w in weights[1:3]:
    step_x, step_w = power_of_two(jnp.max(x) / 3), power_of_two(jnp.std(w))
    code_x = jnp.clip(jnp.rint(x / step_x), 0, 3).astype(jnp.uint8)
    code_w = jnp.clip(jnp.rint((w / step_w + 3) / 2), 0, 3).astype(jnp.uint8)
    x = jax.nn.relu(inner(code_x, code_w, step_x, step_w))
  return jnp.mean(x, axis=(1, 2)) @ weights[3]


def measure(seed, ablated):
  rng = np.random.default_rng(seed)
  weights = network(rng)
  images = jnp.asarray(rng.normal(size=(8, 8, 8, 1)), jnp.float32)

  def fake(x, w, step_x, step_w):
    return integer_conv(A2.values(x) * step_x, W2.values(w) * step_w)

  def packed(x, w, step_x, step_w):
    y = packed_conv(x, w, ablated)
    return y.astype(jnp.float32) * (step_x * step_w)

  want, got = (logits(weights, images, f) for f in (fake, packed))
  w = weights[1]
  words = planes.pack_planes(
    jnp.zeros((w[..., 0].size, w.shape[3]), jnp.uint8), W2, axis=-2
  ).words
  padded = -(-w[..., 0].size // 32) * 32 * w.shape[3]
  per_64 = reference.count_operations(2, 2, 64)['popcounts']
  return {
    'exact': exact_convolutions(rng, ablated),
    'logits': float(jnp.max(jnp.abs(got - want)) / jnp.max(jnp.abs(want))),
    'size': words.size * 32 / (32 * padded),
    'popcounts': per_64,
  }


def get_claim():
  return claims.Claim(
    key='deeplite_rt',
    title='DeepliteRT: Computer Vision at the Edge',
    reference='arXiv:2309.10878',
    recipe='kernels.bitplane_matmul.bitplane_conv',
    says='2-bit layers of a CNN run as ANDs and popcounts with the results of '
    'their fake-quantized form',
    published='exact; 1/16 of the float32 weights (speed is not measured here)',
    ablation='without the popcount of activations that bipolar weights need',
    measure=measure,
    holds=lambda n: (
      n['exact'] == 1 and n['logits'] < 1e-5 and n['size'] == 1 / 16
    ),
    show='{exact:.0%} of convolutions exact, logits off by {logits:.0e}, '
    'weights {size:.4f} of float32, {popcounts:.0f} popcounts for 64 MACs of '
    '2 x 2 bits in 32-bit words',
  )
