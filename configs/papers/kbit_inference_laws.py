"""k-bit inference scaling: at equal total bits, 4 bits a weight are best.

The decoders of docs/embedded_sweep.jsonl that were trained longest, weights
rounded to 2 to 8 bits in groups of 16 with float32 scales. Losses are compared
at equal bits of the quantized layers, scales included; embedding and head stay
in float. The ablation compares at equal numbers of parameters instead, where
more bits can only help. The paper's accounting of scales is checked on packed
tensors.
"""

import pathlib

import jax

import lowbit as lb
from lowbit.analysis import laws_solve
from lowbit.experiment import claims, law_points, results

SWEEP = pathlib.Path(__file__).parents[2] / 'docs/embedded_sweep.jsonl'


def measure(seed, ablated):
  points = law_points.inference(results.read(SWEEP))
  bits, total = points.inputs['bits'], points.inputs['total_bits']
  if ablated:
    per_weight = laws_solve.bits_per_weight(bits, 16, scale_bits=32)
    total = total / per_weight
  shares = laws_solve.best_width(bits, total, points.target)
  w = jax.random.normal(jax.random.key(seed), (256, 1024))
  stored = lb.bits(lb.pack(lb.quantize(w, 'int4@g64:fp16'))) / w.size
  return {**{f'k{k:g}': v for k, v in shares.items()}, 'stored': stored}


def get_claim():
  return claims.Claim(
    key='kbit_inference_laws',
    title='The case for 4-bit precision: k-bit Inference Scaling Laws',
    reference='arXiv:2212.09720',
    recipe='analysis.laws_solve.best_width; Spec int2..int8@g16',
    says='at equal total bits a larger model with 4-bit weights beats smaller '
    'ones with more bits, and larger ones with fewer',
    published='4 bits almost always best; 4.25 bits with 16 for 64 weights',
    ablation='compared at equal numbers of parameters',
    measure=measure,
    holds=lambda n: (
      max(('k2', 'k3', 'k4', 'k5', 'k6', 'k8'), key=n.get) == 'k4'
      and n['k2'] == n['k8'] == 0
      and n['stored'] == 4.25
    ),
    show='best over {k2:.0%} / {k3:.0%} / {k4:.0%} / {k5:.0%} / {k6:.0%} / '
    '{k8:.0%} of the budgets at 2 / 3 / 4 / 5 / 6 / 8 bits; {stored:.2f} bits',
    seeds=(0,),
  )
