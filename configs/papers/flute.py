"""FLUTE: learned scales of NF3 groups lower a layer's output error.

Heavy-tailed weights (t(4)) and correlated inputs, NF3 in groups of 128, 200
steps of Adam on the scales alone; the table stays, codes are found anew. 3-bit
codes take 3 bits, as planes of 2 and 1. The ablation leaves the scales at their
absmax.
"""

import jax
import jax.numpy as jnp

import lowbit as lb
from lowbit.experiment import claims
from lowbit.recipes import learned_scales


def measure(seed, ablated):
  keys = jax.random.split(jax.random.key(seed), 3)
  w = jax.random.t(keys[0], 4.0, (128, 512)) / 16
  basis = jnp.linalg.qr(jax.random.normal(keys[1], (512, 512)))[0]
  spectrum = jnp.arange(1, 513, dtype=jnp.float32) ** -0.5
  x = (jax.random.normal(keys[2], (2048, 512)) * spectrum[None]) @ basis.T
  hessian = x.T @ x / len(x)
  error = lambda q: float(
    lb.solvers.output_error(lb.dequantize(q) - w, hessian)
  )
  first = lb.quantize(w, 'nf3@g128')
  trained = learned_scales.learn_scales(
    w, hessian, 'nf3@g128', rate=0.0 if ablated else 0.005
  )
  packed = lb.pack(first)
  return {
    'lower': 1 - error(trained) / error(first),
    'bits': 8 * packed.words.size / w.size,
    'back': float(jnp.array_equal(lb.unpack(packed).codes, first.codes)),
  }


def get_claim():
  return claims.Claim(
    key='flute',
    title='Fast Matrix Multiplications for Lookup Table-Quantized LLMs',
    reference='arXiv:2407.10960',
    recipe='recipes.learned_scales; kernels.dequant_matmul',
    says='scales alone, learned, lower the error of NF3 groups by a margin',
    published='at least 10 % (expected of a layer loss); 3 bits a code',
    ablation='scales at their absmax',
    measure=measure,
    holds=lambda n: n['lower'] > 0.1 and n['bits'] == 3 and n['back'] == 1,
    show='error {lower:.0%} lower; {bits:.0f} bits a code',
  )
