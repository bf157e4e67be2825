"""ABQ-LLM: five levels at two bits, and any WpAq product from binary ones.

Gaussian weights in groups of 128: levels -2..2 against the four of two bits,
with the range of the group and with a searched one. W2A8, W3A4 and W6A6 as sums
of binary products equal the integer product. The ablation keeps four levels.
The calibration losses of the paper are not part of this claim.
"""

import jax
import jax.numpy as jnp
import numpy as np

from lowbit.experiment import claims
from lowbit.kernels import bitplane_matmul as bits


def mse(w, levels, clip):
  """Affine rounding to `levels` steps of each row's range, times `clip`."""
  high = clip * jnp.max(w, axis=1, keepdims=True)
  low = clip * jnp.min(w, axis=1, keepdims=True)
  scale = (high - low) / (levels - 1)
  zero = -jnp.rint(low / scale)
  code = jnp.clip(jnp.rint(w / scale) + zero, 0, levels - 1)
  return jnp.mean((w - (code - zero) * scale) ** 2, axis=1)


def exact_products(rng):
  same = 0
  for w_bits, a_bits in ((2, 8), (3, 4), (6, 6)):
    a_code = bits.Coding.signed(a_bits)
    # The five levels are bits 0..4 with -2 added; other widths are signed.
    w_code = bits.Coding.signed(w_bits)
    if w_bits == 2:
      w_code = bits.Coding.unsigned(3, zero=2)
    a = rng.integers(0, 2**a_bits, (5, 200))
    w = rng.integers(0, 5 if w_bits == 2 else 2**w_bits, (200, 24))
    got = bits.bitplane_matmul(
      bits.pack_planes(jnp.asarray(a), a_code),
      bits.pack_planes(jnp.asarray(w), w_code, axis=-2),
    )
    want = np.asarray(a_code.values(a)) @ np.asarray(w_code.values(w))
    same += bool((np.asarray(got) == want).all())
  return same / 3


def measure(seed, ablated):
  w = jax.random.normal(jax.random.key(seed), (4096, 128))
  levels = 4 if ablated else 5
  clips = np.linspace(0.3, 1.0, 29)
  searched = jnp.stack([mse(w, levels, c) for c in clips])
  return {
    'range': float(jnp.mean(mse(w, levels, 1.0))),
    'searched': float(jnp.mean(jnp.min(searched, axis=0))),
    'exact': exact_products(np.random.default_rng(seed)),
  }


def get_claim():
  return claims.Claim(
    key='abq_llm',
    title='ABQ-LLM: Arbitrary-Bit Quantized Inference Acceleration for LLMs',
    reference='arXiv:2408.08554',
    recipe='kernels.bitplane_matmul',
    says='a fifth level balances 2-bit weights; products of any widths are '
    'sums of binary ones',
    published='MSE .2536 with 4 levels, .1422 with 5; .1360 and .0795 with a '
    'searched range (computed)',
    ablation='four levels',
    measure=measure,
    holds=lambda n: (
      n['exact'] == 1
      and abs(n['range'] / 0.1422 - 1) < 0.1
      and abs(n['searched'] / 0.0795 - 1) < 0.1
    ),
    show='MSE {range:.4f}, searched {searched:.4f}; {exact:.0%} of the widths '
    'exact',
  )
