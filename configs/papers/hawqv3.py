"""HAWQV3: the published ResNet18 instance of the ILP, and dyadic scales.

The traces, distances and costs of the released code; the allocations at six
budgets must be the shipped ones. The ablation drops the Hessian's trace, and
weighs layers by their distance alone.
"""

import jax.numpy as jnp
import numpy as np

from lowbit import allocation
from lowbit.experiment import claims
from lowbit.quantize import dyadic

# fmt: off
TRACE = np.array([
  .06857826, .03162379, .03298575, .01205663, .02222431, .00596336, .06931772,
  .00807129, .00372905, .00530698, .00209011, .00737569, .00210454, .00151197,
  .00158041, .00078146, .00451841, .00098745, .00072944])
D8 = np.array([
  .0235, .0125, .0102, .0082, .0145, .0344, .0023, .0287, .0148, .0333, .0682,
  .0027, .0448, .0336, .0576, .1130, .0102, .0947, .0532])
D4 = np.array([
  6.7430, 3.9691, 3.3281, 2.6796, 4.7277, 10.5966, .6827, 9.0942, 4.8857,
  10.7599, 21.7546, .8603, 14.5324, 10.9651, 18.7706, 36.4044, 3.1572, 29.6994,
  17.4016])
PARAMS = np.array(
  [36864] * 4 + [73728, 147456, 8192] + [147456] * 2 + [294912, 589824, 32768]
  + [589824] * 2 + [1179648, 2359296, 131072] + [2359296] * 2, float)
SHIPPED = {
  ('size', .25): set(range(14, 19)), ('size', .5): {15, 17, 18},
  ('size', .75): {13, 18}, ('ops', .25): {3, 5, *range(7, 19)},
  ('ops', .5): {3, 8, *range(12, 19)}, ('ops', .75): {8, 13, 15, 18}}
# fmt: on
TIES = ((4, 6), (9, 11), (14, 16))


def costs():
  """Cost [layers, (4 bit, 8 bit)] in bytes, and in scaled operations."""
  macs = np.full(19, 115605504.0)
  macs[[4, 9, 14]] = 57802752
  macs[[6, 11, 16]] = 6422528
  size = np.stack([PARAMS / 2, PARAMS], 1)
  return {'size': size, 'ops': np.stack([macs / 64, macs / 16], 1)}


def measure(seed, ablated):
  trace = np.ones(19) if ablated else TRACE
  harm = trace[:, None] * np.stack([D4, D8], 1)
  right = 0
  for (kind, share), want in SHIPPED.items():
    cost = costs()[kind]
    low, high = cost[:, 0].sum(), cost[:, 1].sum()
    budget = low + (high - low) * share
    found = allocation.choose(harm, [cost], [budget], TIES)
    right += set(np.flatnonzero(found == 0).tolist()) == want
  rng = np.random.default_rng(seed)
  acc = rng.integers(-(2**24), 2**24, 1_000_000)
  ratio = float(rng.uniform(1e-4, 1e-2))
  got = dyadic.requantize(jnp.asarray(acc, jnp.int32), dyadic.dyadic(ratio))
  off = np.abs(np.asarray(got) - acc * ratio).max()
  return {'right': float(right), 'off': float(off)}


def get_claim():
  return claims.Claim(
    key='hawqv3',
    title='HAWQV3: Dyadic Neural Network Quantization',
    reference='arXiv:2011.10680',
    recipe='allocation.choose, quantize.dyadic',
    says='an ILP over Hessian-weighted distances allots 4 and 8 bits; a '
    'dyadic number rescales in integers within half a unit',
    published='the six bit configurations that ship with the code',
    ablation='no Hessian trace',
    measure=measure,
    holds=lambda n: n['right'] == 6 and n['off'] < 0.51,
    show='{right:.0f} of 6 configurations; requantization off by {off:.3f}',
    seeds=(0, 1),
  )
