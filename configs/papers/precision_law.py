"""Scaling laws for precision: longer training makes rounding cost more.

C D^gD / N^gN exp(-P / g) is fitted to what rounding the float decoders of
docs/embedded_sweep.jsonl to 2 to 6 bits adds to their loss. The published
coefficients, with the offsets that the main text omits, make 7 bits optimal at
any compute (a check of the reading of their sign, as laws_loss.capacity says),
and a bit more lets the critical data grow 5.41 times. The ablation has no data
term, and no offsets.
"""

import pathlib

import numpy as np

from lowbit.analysis import laws_fit, laws_loss, laws_penalty, laws_solve
from lowbit.experiment import claims, law_points, results

SWEEP = pathlib.Path(__file__).parents[2] / 'docs/embedded_sweep.jsonl'


def measure(seed, ablated):
  points = law_points.post_training(results.read(SWEEP))
  found = laws_fit.fit(
    points.law,
    points.inputs,
    points.target,
    held={'gD': 0.0} if ablated else None,
    delta=1e-2,
    followed=4,
  )
  training = dict(laws_loss.precision().published['integers'])
  after = dict(laws_penalty.POST_TRAINING.published['gptq'])
  if ablated:
    training |= {k: 0.0 for k in training if k.startswith('n_')}
    after['gD'] = 1e-6
  at = lambda bits: laws_solve.critical_tokens(1e9, bits, training, after)
  keep = {k: found.coefficients[k] for k in ('gD', 'gN', 'g')}
  return {
    **keep,
    'scatter': float(np.std(found.residuals)),
    'bits': laws_solve.best_bits(training),
    'growth': at(5) / at(4),
  }


def get_claim():
  return claims.Claim(
    key='precision_law',
    title='Scaling Laws for Precision',
    reference='arXiv:2411.04330',
    recipe='analysis.laws_penalty.POST_TRAINING, laws_loss.precision, '
    'laws_solve.best_bits, critical_tokens; Spec int2..int6@g16',
    says='the cost of rounding afterwards grows with tokens, falls with size '
    'and exponentially with bits; 7 to 8 bits are optimal for training',
    published='gD .5068, gN .3439, g .5907; 7-8 bits; 5.41 x data a bit '
    '(computed from these)',
    ablation='no term for the data, no offsets',
    measure=measure,
    holds=lambda n: (
      abs(n['gD'] - 0.5068) < 0.2
      and 0.1 < n['gN'] < 0.7
      and abs(n['g'] - 0.5907) < 0.1
      and abs(n['bits'] - 7) < 0.05
      and abs(n['growth'] - 5.41) < 0.02
    ),
    show='gD {gD:.2f}, gN {gN:.2f}, g {g:.2f}, scatter {scatter:.2f} in log '
    'units; {bits:.1f} bits optimal, {growth:.2f} x data a bit',
    seeds=(0,),
  )
