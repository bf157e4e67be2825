"""bitnet.cpp: ternary kernels that lose nothing against training.

I2_S (2 bits), the 1.6-bit packing, TL1 (2 bits) and TL2 (1.667 bits) against
the integer product for shapes with K no multiple of 3 among them; a
two-layer BitNet against its training-time forward. The ablation rounds the
tables to int8, as T-MAC does. Speed and energy are not part of this claim.
"""

import jax
import jax.numpy as jnp
import numpy as np

import lowbit as lb
from lowbit.experiment import claims
from lowbit.kernels import int_matmul, ternary_matmul
from lowbit.kernels.ternary_matmul import reference

# Rows and depth: K of whole triples, pairs, and neither.
SHAPES = [(1, 6), (3, 96), (2, 97), (4, 125), (1, 1), (2, 150)]


def exact_kernels(rng, ablated):
  """Share of (shape, kernel) whose sums equal the integer product."""
  same = []
  for m, k in SHAPES:
    x = rng.integers(-127, 128, (m, k)).astype(np.int8)
    t = rng.integers(-1, 2, (k, 8)).astype(np.int8)
    want = x.astype(int) @ t.astype(int)
    for block in (None, 6):  # TL1, TL2 with TL1 behind it.
      packed = ternary_matmul.table_pack(jnp.asarray(t), block)
      got = ternary_matmul.table_matmul(jnp.asarray(x), packed, ablated)
      same.append(bool((np.asarray(got) == want).all()))
  for name in ('int2@tensor', 'ternary@tensor'):
    spec = lb.Spec.parse(name)
    x = rng.integers(-127, 128, (3, 1000)).astype(np.int8)
    t = rng.integers(-1, 2, (1000, 8)).astype(np.int8)
    one = jnp.ones((1, 1))
    w = lb.pack(lb.QTensor(jnp.asarray(t), one, None, spec, (-2,)))
    rows = lb.QTensor(
      jnp.asarray(x), jnp.ones((3, 1)), None, lb.Spec.parse('int8@token'), (-1,)
    )
    got = int_matmul.int_matmul(rows, w, dtype=jnp.int32)
    same.append(bool((np.asarray(got) == x.astype(int) @ t.astype(int)).all()))
  return np.mean(same)


def network_error(seed):
  """Two layers served against the forward pass of training."""
  keys = jax.random.split(jax.random.key(seed), 3)
  x = jax.random.normal(keys[0], (8, 96))
  w1 = jax.random.normal(keys[1], (96, 128))
  w2 = jax.random.normal(keys[2], (128, 16))
  train = lambda x, w: reference.bit_linear(x, w)
  serve = lambda x, w: ternary_matmul.ternary_matmul(
    x, ternary_matmul.absmean(w)
  )
  run = lambda layer: layer(jax.nn.relu(layer(x, w1)), w2)
  want = run(train)
  return float(jnp.max(jnp.abs(run(serve) - want)) / jnp.max(jnp.abs(want)))


def measure(seed, ablated):
  zeros = jnp.zeros((2304, 8), jnp.int8)
  return {
    'exact': exact_kernels(np.random.default_rng(seed), ablated),
    'network': network_error(seed),
    'tl1': ternary_matmul.table_pack(zeros, None).bits_per_weight,
    'tl2': ternary_matmul.table_pack(zeros, 96).bits_per_weight,
  }


def get_claim():
  return claims.Claim(
    key='bitnet_cpp',
    title='1-bit AI Infra: Fast and Lossless BitNet b1.58 Inference on CPUs',
    reference='arXiv:2410.16144',
    recipe='kernels.ternary_matmul',
    says='packed ternary kernels give the integers of the training-time '
    'forward',
    published='lossless; 2, 2 and 1.667 bits a weight',
    ablation='tables rounded to int8',
    measure=measure,
    holds=lambda n: (
      n['exact'] == 1
      and n['network'] < 1e-5
      and n['tl1'] == 2
      and abs(n['tl2'] - 5 / 3) < 1e-9
    ),
    show='{exact:.0%} of products exact; network off by {network:.0e}; '
    '{tl1:.0f} and {tl2:.3f} bits',
  )
