"""A2Q: weights rounded toward zero under an L1 cap cannot overflow.

8-bit weights of 256 terms, unsigned 8-bit inputs, an 18-bit accumulator where
the types alone ask for 25 bits: the worst inputs (the largest wherever a weight
is positive) stay inside, and plain int8 weights overflow it many times. The
ablation rounds to nearest, which breaks the cap.
"""

import jax
import jax.numpy as jnp
import numpy as np

from lowbit import quantize
from lowbit.experiment import claims
from lowbit.quantize import accumulator

P, N, K = 18, 8, 256


def worst(whole):
  """The largest |sum| that inputs of N bits can reach."""
  up = np.maximum(whole, 0).sum(axis=1)
  down = np.maximum(-whole, 0).sum(axis=1)
  return float(np.maximum(up, down).max() * (2**N - 1))


def measure(seed, ablated):
  # One sign: the worst input meets the whole norm.
  w = jnp.abs(jax.random.normal(jax.random.key(seed), (1000, K)))
  q = accumulator.A2q(8, P, N)
  params = q.init(w)
  whole, step = q.integers(w, params)
  if ablated:
    norm = jnp.exp2(
      jnp.minimum(
        params['log_norm'],
        params['log_step'] + np.log2(accumulator.norm_cap(P, N)),
      )
    )
    total = jnp.sum(jnp.abs(w), axis=1, keepdims=True)
    whole = jnp.rint(w / total * norm / step)
  plain = np.asarray(quantize.quantize(w, 'int8@channel').codes, np.int64)
  limit = 2 ** (P - 1) - 1
  bounds = [accumulator.width_bound(k, 8, 8) for k in (64, 128, 256, 512, 1024)]
  return {
    'used': worst(np.asarray(whole, np.int64)) / limit,
    'plain': worst(plain) / limit,
    'bounds': float(
      bounds == [23, 24, 25, 26, 27]
      and accumulator.width_bound(784, 1, 8) == 19
    ),
    'zeros': float(np.mean(np.asarray(whole) == 0)),
  }


def get_claim():
  return claims.Claim(
    key='a2q',
    title='A2Q: Accumulator-Aware Quantization with Guaranteed Overflow '
    'Avoidance',
    reference='arXiv:2308.13504',
    recipe='quantize.accumulator.A2q',
    says='under an L1 cap, rounding toward zero, no input overflows',
    published='bounds of 23 to 27 bits at K = 64 to 1024, 19 for K = 784 and '
    '1-bit inputs; never an overflow at P',
    ablation='rounding to nearest',
    measure=measure,
    holds=lambda n: n['used'] <= 1 and n['plain'] > 1 and n['bounds'] == 1,
    show='worst sum {used:.2f} of the accumulator ({plain:.0f} without the '
    'cap), {zeros:.0%} zeros',
  )
