"""Floating-point training: the loss over size, tokens, E, M and block size.

The law is fitted to 144 decoders of docs/embedded_sweep.jsonl, trained in float
and with weights and inputs in six ExMy formats, in groups of 4 and 16; and its
published coefficients give the critical data sizes and best layouts of the
paper. Without its precision term, which is the ablation, formats cost nothing:
runs scatter about the fit twice as far, and there is no critical size.
That exponent bits are worth more than mantissa bits does not show here: see
docs/scaling_laws.md.
"""

import pathlib

import numpy as np

from lowbit.analysis import laws_fit, laws_loss, laws_solve
from lowbit.experiment import claims, law_points, results

SWEEP = pathlib.Path(__file__).parents[2] / 'docs/embedded_sweep.jsonl'
CRITICAL = {(8, 7): 1730.0, (4, 3): 27.3, (2, 1): 0.393}  # Trillion tokens.
BEST = {4: (2, 1), 6: (3, 2), 8: (4, 3), 16: (8, 7)}


def measure(seed, ablated):
  points = law_points.capybara(results.read(SWEEP))
  off = dict(g=1e30, de=1.0, nu=1.0) if ablated else {}
  found = laws_fit.fit(
    points.law,
    points.inputs,
    points.target,
    held=off,
    delta=1e-2,
    followed=8,
  )
  paper = {**laws_loss.CAPYBARA.published['paper'], **off}
  critical = {
    f'd{e + m + 1}': laws_solve.critical_tokens_float(1e9, e, m, 128, paper)
    / 1e12
    for e, m in CRITICAL
  }
  layouts = all(
    laws_solve.layout_float(b, paper) == best for b, best in BEST.items()
  )
  return {
    'scatter': float(np.std(found.residuals)),
    'layouts': float(layouts),
    **critical,
  }


def get_claim():
  return claims.Claim(
    key='capybara',
    title='Scaling Laws for Floating-Point Quantization Training',
    reference='arXiv:2501.02423',
    recipe='analysis.laws_loss.CAPYBARA, laws_solve.critical_tokens_float, '
    'layout_float; configs/sweeps/embedded.py',
    says='a format adds D^b / N^a log2(B) over powers of E + 1/2 and M + 1/2 '
    'to the loss, so that each has a critical data size',
    published='1730 / 27 / .4 T tokens for BF16 / FP8 / FP4 at 1e9 parameters; '
    'E2M1, E3M2, E4M3, E8M7 best',
    ablation='no precision term',
    measure=measure,
    holds=lambda n: (
      n['scatter'] < 0.013
      and n['layouts'] == 1
      and all(
        abs(n[f'd{e + m + 1}'] / t - 1) < 0.02 for (e, m), t in CRITICAL.items()
      )
    ),
    show='scatter of 144 runs {scatter:.4f} in log loss; {d16:.4g} / {d8:.4g} '
    '/ {d4:.3g} T tokens; best layouts {layouts:.0f}',
    seeds=(0,),
  )
