"""Low-bit quantization favors undertrained models: QiD grows with tokens.

The law k D^b / (N^a P^g) is fitted to what rounding the float decoders of
docs/embedded_sweep.jsonl to 2 to 6 bits adds to their loss. Its exponents have
the published signs and rough sizes, and the published unified coefficients give
the 2-bit column of the paper's table of tokens. In the ablation the penalty
depends on the bits alone, as if the training did not matter.
"""

import pathlib

import numpy as np

from lowbit.analysis import laws_fit, laws_solve
from lowbit.experiment import claims, law_points, results

SWEEP = pathlib.Path(__file__).parents[2] / 'docs/embedded_sweep.jsonl'
TABLE = {1e9: 0.0011, 7e9: 0.0026, 7e10: 0.0071, 4.05e11: 0.0151}


def measure(seed, ablated):
  points = law_points.qid(results.read(SWEEP))
  found = laws_fit.fit(
    points.law,
    points.inputs,
    points.target,
    held=dict(a=0.0, b=0.0) if ablated else None,
    delta=1e-2,
    followed=4,
  )
  off = [
    abs(np.log(laws_solve.tokens_for_penalty(0.2, n, 2) / 1e12 / t))
    for n, t in TABLE.items()
  ]
  scatter = float(np.std(found.residuals))
  keep = {k: found.coefficients[k] for k in 'abg'}
  return {**keep, 'scatter': scatter, 'off': max(off)}


def get_claim():
  return claims.Claim(
    key='qid_law',
    title='Low-Bit Quantization Favors Undertrained LLMs',
    reference='arXiv:2411.17691',
    recipe='analysis.laws_penalty.QID, laws_fit; Spec int2..int6@g16',
    says='what quantization adds to the loss grows as a power of the training '
    'tokens and falls with size and bits',
    published='b .5251, a .2261, g 5.4967; .0011 / .0026 / .0071 / .0151 T '
    'tokens for .2 nats at 2 bits',
    ablation='the penalty depends on the bits alone',
    measure=measure,
    holds=lambda n: (
      abs(n['b'] - 0.5251) < 0.15
      and 0.1 < n['a'] < 0.6
      and abs(n['g'] - 5.4967) < 1
      and n['scatter'] < 0.35
      and n['off'] < 0.1
    ),
    show='b {b:.2f}, a {a:.2f}, g {g:.1f}, scatter {scatter:.2f} in log units; '
    'published column within {off:.0%}',
    seeds=(0,),
  )
