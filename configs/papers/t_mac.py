"""T-MAC: a product by table lookups, whose work is linear in weight bits.

Exact tables give the product of the decoded weights; int8 tables, one scale for
64 activations, an error that was computed independently for K = 4096 Gaussian
inputs; b K / 4 lookups an output. The ablation leaves out the half sum of
activations that the +-1 planes owe. Throughput is not part of this claim.
"""

import jax
import jax.numpy as jnp

import lowbit as lb
from lowbit.experiment import claims
from lowbit.kernels import lut_matmul as lut
from lowbit.kernels.lut_matmul import layout, reference

WANT = {4: 7.0e-5, 2: 2.4e-4, 1: 3.4e-4}
K, N = 4096, 64


def measure(seed, ablated):
  keys = jax.random.split(jax.random.key(seed), 2)
  x = jax.random.normal(keys[0], (4, K))
  numbers = {'exact': 0.0}
  for bits in WANT:
    # Every code alike, as random codes of a kernel test.
    name = 'int1@channel' if bits == 1 else f'int{bits}f@channel'
    spec = lb.Spec.parse(name)
    codes = jax.random.choice(keys[1], spec.format.codes(), (K, N))
    scale = jnp.ones((1, N), jnp.float32)
    q = lb.QTensor(codes, scale, None, spec, (-2,))
    w = lut.lut_weight(q)
    if ablated:
      w = layout.LutWeight(w.words, w.scale, 0 * w.offset, w.size)
    want = jnp.matmul(x, lb.dequantize(q), precision='highest')
    error = lambda y, want=want: float(
      jnp.mean((y - want) ** 2) / jnp.mean(want**2)
    )
    numbers['exact'] = max(numbers['exact'], error(lut.lut_matmul(x, w)))
    numbers[f'b{bits}'] = error(lut.lut_matmul(x, w, quantize_tables=True))
    count = reference.count_operations(K, N, bits)
    numbers[f'adds{bits}'] = count['adds'] / (K * N)
  return numbers


def get_claim():
  return claims.Claim(
    key='t_mac',
    title='T-MAC: CPU Renaissance via Table Lookup for Low-Bit LLM Deployment '
    'on Edge',
    reference='arXiv:2407.00088',
    recipe='kernels.lut_matmul',
    says='lookups in tables of four activations replace the products of b-bit '
    'weights, with work linear in b',
    published='int8 tables: NMSE 7.0e-5, 2.4e-4, 3.4e-4 at 4, 2, 1 bits '
    '(computed)',
    ablation='without the half sum of activations',
    measure=measure,
    holds=lambda n: (
      n['exact'] < 1e-10
      and all(abs(n[f'b{b}'] / want - 1) < 0.25 for b, want in WANT.items())
      and all(n[f'adds{b}'] == b / 4 for b in WANT)
    ),
    show='exact tables {exact:.0e}; int8 tables {b4:.1e}, {b2:.1e}, {b1:.1e}',
  )
