"""ModuLoRA: adapters over any quantized base, which is never kept decoded.

y = x (D(c) + u v): gradients of x, u and v equal those over the dense matrix,
codes get none, and what the forward pass keeps for the backward one holds the
packed codes, and no array of the size of the matrix in float. Three bases (NF4,
INT4, INT3 by GPTQ) change nothing else. The ablation decodes the base first.
"""

import jax
import jax.numpy as jnp

import lowbit as lb
from lowbit import operators
from lowbit.experiment import claims

SIZE, OUT, RANK = 512, 384, 8


def bases(w, x):
  """Packed operators [in, out] of w [out, in]."""
  hessian = x.T @ x / len(x)
  found = [
    lb.quantize(w, 'nf4@g64'),
    lb.quantize(w, 'int4@g64'),
    lb.solvers.gptq(w, hessian, 'int3@g64'),
  ]
  return [operators.Coded(lb.pack(lb.quantize.transpose(q))) for q in found]


def measure(seed, ablated):
  keys = jax.random.split(jax.random.key(seed), 5)
  w = jax.random.normal(keys[0], (OUT, SIZE)) / 22
  x = jax.random.normal(keys[1], (64, SIZE))
  c = jax.random.normal(keys[2], (64, OUT))
  u = jax.random.normal(keys[3], (SIZE, RANK)) / 22
  v = jax.random.normal(keys[4], (RANK, OUT)) / 3
  worst, kept = 0.0, 0
  for base in bases(w, x):
    held = operators.Matrix(base.dense()) if ablated else base

    def product(x, u, v, held=held):
      return operators.Sum(held, operators.LowRank(u, v)).apply(x)

    dense = lambda x, u, v, base=base: x @ (base.dense() + u @ v)
    got, pull = jax.vjp(product, x, u, v)
    want, reference = jax.vjp(dense, x, u, v)
    pairs = [(got, want), *zip(pull(c), reference(c))]
    for a, b in pairs:
      worst = max(worst, float(jnp.abs(a - b).max() / jnp.abs(b).max()))
    sizes = [a.nbytes for a in jax.tree.leaves(pull) if a.ndim == 2]
    kept = max(kept, *sizes)
  return {'worst': worst, 'kept': kept / (4 * SIZE * OUT)}


def get_claim():
  return claims.Claim(
    key='modulora',
    title='ModuLoRA: Finetuning 2-Bit LLMs on Consumer GPUs',
    reference='arXiv:2309.16119',
    recipe='operators.Sum(Coded, LowRank)',
    says='adapters train over any packed base, which is decoded anew in the '
    'backward pass',
    published='gradients equal to 1e-5; no dense matrix among what is kept',
    ablation='the base is decoded first',
    measure=measure,
    holds=lambda n: n['worst'] < 1e-4 and n['kept'] < 0.5,
    show='gradients differ by {worst:.1e}; the largest array kept is '
    '{kept:.0%} of the float32 matrix',
    seeds=(0,),
  )
