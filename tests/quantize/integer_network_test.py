"""A small CNN in int32 alone: the integers of fake quantization, exactly.

Convolution, bias at the accumulator's scale, dyadic requantization, ReLU, a
residual sum whose branches are brought to one scale, pooling, and a head. The
reference takes real scales, in float64.
"""

import jax
import jax.numpy as jnp
import numpy as np

import lowbit as lb
from lowbit.quantize import dyadic

RNG = np.random.default_rng(0)
IMAGES = RNG.uniform(0, 1, (64, 8, 8, 3))
FIRST = RNG.normal(size=(3, 3, 3, 8)) / 5
SECOND = RNG.normal(size=(3, 3, 8, 8)) / 8
SKIP = RNG.normal(size=(1, 1, 3, 8)) / 2
HEAD = RNG.normal(size=(8, 10))
BIAS = RNG.normal(size=8) / 10
# Scales of the activations, as a calibration would fix them.
INPUT, HIDDEN, SUM, POOLED = 1 / 127, 2.5 / 127, 3.0 / 127, 2.0 / 127


def weight(w):
  """int8 codes [..., out] and one scale a channel."""
  q = lb.quantize(
    jnp.asarray(w, jnp.float32), 'int8@channel', axis=(-4, -3, -2)
  )
  return q.codes, np.asarray(q.scale, np.float64).reshape(-1)


def convolve(x, w):
  """int8 by int8 into int32."""
  return jax.lax.conv_general_dilated(
    x.astype(jnp.int32),
    w.astype(jnp.int32),
    (1, 1),
    'SAME',
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
  )


def away(x):
  return np.sign(x) * np.floor(np.abs(x) + 0.5)


def rescaled(accumulator, ratio, reference):
  """round(accumulator ratio): by floats, or in integers."""
  if reference:
    return away(np.asarray(accumulator, np.float64) * ratio)
  return dyadic.requantize(accumulator, dyadic.dyadic(ratio))


def network(reference):
  """The logits' integers; every step is int32 unless it is the reference."""
  xp = np if reference else jnp
  int8 = lambda a: xp.clip(a, -127, 127).astype(xp.int8)
  as_bias = lambda scale: np.round(BIAS / scale).astype(np.int32)
  x = jnp.asarray(np.round(IMAGES / INPUT), jnp.int8)
  (w1, s1), (w2, s2), (w3, s3) = (weight(w) for w in (FIRST, SECOND, SKIP))
  bias = jnp.asarray(as_bias(s1 * INPUT))[None, None, None]
  first = convolve(x, w1) + bias
  hidden = int8(xp.maximum(rescaled(first, s1 * INPUT / HIDDEN, reference), 0))
  second = convolve(jnp.asarray(hidden), w2)
  skip = convolve(x, w3)
  total = rescaled(second, s2 * HIDDEN / SUM, reference) + rescaled(
    skip, s3 * INPUT / SUM, reference
  )
  total = xp.clip(xp.maximum(total, 0), 0, 127)
  pooled = total.astype(xp.int32).sum((1, 2))
  pooled = int8(rescaled(pooled, SUM / 64 / POOLED, reference))
  head = lb.quantize(jnp.asarray(HEAD, jnp.float32), 'int8@tensor').codes
  return jnp.asarray(pooled).astype(jnp.int32) @ head.astype(jnp.int32), hidden


def test_integers_alone_give_the_same_network():
  logits, hidden = network(False)
  assert logits.dtype == jnp.int32
  want, expected = network(True)
  np.testing.assert_array_equal(hidden, expected)
  np.testing.assert_array_equal(logits, want)
  assert len(np.unique(np.argmax(logits, -1))) > 1


def test_it_is_near_the_float_network():
  logits, _ = network(False)
  conv = lambda x, w: jax.lax.conv_general_dilated(
    jnp.asarray(x, jnp.float32),
    jnp.asarray(w, jnp.float32),
    (1, 1),
    'SAME',
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
  )
  bias = jnp.asarray(BIAS, jnp.float32)[None, None, None]
  hidden = jax.nn.relu(conv(IMAGES, FIRST) + bias)
  total = jax.nn.relu(conv(hidden, SECOND) + conv(IMAGES, SKIP))
  want = np.asarray(total.mean((1, 2)), np.float64) @ HEAD
  got = np.asarray(logits) * POOLED * np.abs(HEAD).max() / 127
  assert np.linalg.norm(got - want) < 0.05 * np.linalg.norm(want)
