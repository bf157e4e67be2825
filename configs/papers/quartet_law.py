"""Quartet's law: forward precision is worth parameters, backward data.

The paper's released losses on C4, fitted anew in its two stages: the law on the
BF16 runs, then effN on runs with MXFP4 in the forward pass and effD on runs
with it in the backward pass, the rest held; and both together predict the runs
with both. The ablation has no outer exponent (c = 1, Chinchilla's form), and
its best fit is over three times as bad.
"""

import dataclasses

import numpy as np

from lowbit.analysis import laws_fit, laws_loss
from lowbit.experiment import claims

SIZES = {30: 30482560, 50: 49556736, 100: 102777856, 200: 203188480}
STEPS = {  # Of 262144 tokens each.
  30: (2861, 5722, 11444, 22888, 45776, 91552, 183105),
  50: (4768, 9536, 19073, 38146, 76293, 152587),
  100: (9536, 19073, 38146, 76293, 152587, 305175),
  200: (19073, 38146, 76293),
}
# Nats. A shorter row ends earlier.
BF16 = {
  30: (3.41571, 3.29368, 3.20785, 3.1470, 3.09895, 3.0609, 3.03114),
  50: (3.24001, 3.14171, 3.0677, 3.01214, 2.97009, 2.93528),
  100: (3.05118, 2.95905, 2.88578, 2.83359, 2.79347, 2.76273),
  200: (2.88419, 2.79835, 2.73594),
}
LARGE = ((443068288, 164031, 2.57078), (822151168, 305175, 2.46098))
FORWARD = {
  30: (3.48209, 3.36955, 3.28726, 3.23693, 3.19918, 3.16289),
  50: (3.30821, 3.21191, 3.14552, 3.09955, 3.06232, 3.02732),
  100: (3.11734, 3.0291, 2.9613, 2.9145, 2.87995, 2.84843),
  200: (2.94854, 2.86402, 2.80348),
}
BACKWARD = {
  30: (3.4302, 3.30879, 3.22104, 3.15739, 3.11049, 3.0711, 3.04006),
  50: (3.25517, 3.15509, 3.08219, 3.0244, 2.98139, 2.94425),
  100: (3.06675, 2.97427, 2.90044, 2.84596, 2.80412, 2.7713),
  200: (2.89457, 2.80889, 2.74316),
}
BOTH = {
  30: (3.50033, 3.38181, 3.29879, 3.24354, 3.20481, 3.16667),
  50: (3.32075, 3.22408, 3.15832, 3.10953, 3.07157, 3.03485),
  100: (3.13147, 3.04042, 2.97248, 2.92403, 2.88647, 2.85331),
  200: (2.96302, 2.87813, 2.81429),
}


def points(table, more=()):
  """({'parameters', 'tokens'}, losses) of a table."""
  rows = [
    (SIZES[m], step, loss)
    for m, losses in table.items()
    for step, loss in zip(STEPS[m], losses)
  ]
  n, steps, losses = map(np.array, zip(*rows, *more))
  return dict(parameters=n, tokens=steps * 262144), losses


def measure(seed, ablated):
  law = laws_loss.QUARTET

  def fit(data, **options):
    return laws_fit.fit(law, *data, delta=1e-4, followed=4, **options)

  outer = {'c': 1.0} if ablated else {}
  base = fit(points(BF16, LARGE), held=outer)
  held = {k: v for k, v in base.coefficients.items() if not k.startswith('eff')}
  one = dict(starts={'effN': (0.7, 0.9), 'effD': (0.7, 0.9)})
  law = _free(law)
  forward = fit(points(FORWARD), held={**held, 'effD': 1.0}, **one)
  backward = fit(points(BACKWARD), held={**held, 'effN': 1.0}, **one)
  found = {
    'effN': forward.coefficients['effN'],
    'effD': backward.coefficients['effD'],
  }
  inputs, losses = points(BOTH)
  error = np.log(losses) - np.log(law.predict({**held, **found}, **inputs))
  return {
    **found,
    'cost': base.cost * 1e6,
    'c': base.coefficients['c'],
    'both': float(np.sqrt(np.mean(error**2))),
  }


def _free(law):
  """The law with effN and effD among what is fitted."""
  starts = {**law.starts, 'effN': (0.7,), 'effD': (0.7,)}
  return dataclasses.replace(law, starts=starts, held={})


def get_claim():
  return claims.Claim(
    key='quartet_law',
    title='Quartet: Native FP4 Training Can Be Optimal for LLMs',
    reference='arXiv:2505.14669',
    recipe='analysis.laws_loss.QUARTET, laws_fit',
    says='MXFP4 in the forward pass is worth a share effN of the parameters, '
    'in the backward pass a share effD of the data, in one generalized law',
    published='cost 2.129e-6, c .2764, effN .6452, effD .8935',
    ablation='outer exponent 1, as in Chinchilla',
    measure=measure,
    holds=lambda n: (
      abs(n['cost'] / 2.129218 - 1) < 1e-3
      and abs(n['effN'] - 0.645163) < 1e-3
      and abs(n['effD'] - 0.893469) < 1e-3
      and n['both'] < 0.004
    ),
    show='cost {cost:.4f}e-6, c {c:.4f}, effN {effN:.4f}, effD {effD:.4f}; '
    'runs with both within {both:.4f} of the log loss',
    seeds=(0,),
    fast=False,
  )
