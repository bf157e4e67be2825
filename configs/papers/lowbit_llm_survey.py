"""Survey of low-bit LLMs: what a format really costs in bits.

The effective bits of a weight, scales, zero points and second levels included,
counted from the packed bytes. Quoting the nominal width is the trap that the
survey warns of, and the ablation.
"""

import jax
import numpy as np

import lowbit as lb
from lowbit.experiment import claims

# Spec -> bits a weight by the arithmetic of the formats' definitions.
BITS = {
  'int4z@g128:fp16': 4 + (16 + 4) / 128,
  'int8@channel': 8 + 32 / 4096,
  'nf4@g64': 4 + 32 / 64,
  'nf4@g64:(int8@g256)': 4 + 8 / 64 + 32 / (64 * 256),
  'mxfp4': 4.25,
  'mxfp6_e2m3': 6.25,
  'mxfp8_e4m3': 8.25,
  'nvfp4': 4.5,
  'int2z@g64:fp16': 2 + (16 + 2) / 64,
  'ternary@channel:fp16': 1.6 + 16 / 4096,
}


def measure(seed, ablated):
  w = jax.random.normal(jax.random.key(seed), (256, 20480))[:, :4096]
  numbers = {}
  for name in BITS:
    spec = lb.Spec.parse(name)
    q = lb.quantize(w, spec)
    bits = spec.format.bits if ablated else lb.bits(lb.pack(q)) / w.size
    numbers[name] = float(bits)
  worst = max(abs(numbers[k] - v) for k, v in BITS.items())
  return {'worst': worst, **{k: numbers[k] for k in ('mxfp4', 'nvfp4')}} | {
    'double': numbers['nf4@g64:(int8@g256)'],
    'affine': numbers['int4z@g128:fp16'],
    'ternary': numbers['ternary@channel:fp16'],
    'formats': float(np.size(list(BITS))),
  }


def get_claim():
  return claims.Claim(
    key='lowbit_llm_survey',
    title='A Survey of Low-bit Large Language Models',
    reference='arXiv:2409.16694',
    recipe='lowbit.bits, analysis.taxonomy',
    says='the bits of a weight are those of codes, scales and zero points',
    published='INT4 affine g128 4.156, NF4 g64 with double quantization 4.127, '
    'MXFP4 4.25, NVFP4 4.5, ternary 1.6',
    ablation='nominal bits',
    measure=measure,
    # 4096 is no multiple of 5: ternary rows round up to whole bytes.
    holds=lambda n: n['worst'] < 0.01,
    show='{affine:.3f} / {double:.3f} / {mxfp4:.2f} / {nvfp4:.2f} / '
    '{ternary:.2f}; worst of {formats:.0f} formats off by {worst:.4f}',
    seeds=(0,),
  )
