"""DAQ: centre the dense part of NF4 on the weights, then tune by sign descent.

Output error of NF4 on skewed weights, in groups of 128 with correlated inputs:
symmetric, min-max, centred on the density, and refined. Refinement never raises
a group's error. The ablation takes min-max zero points and no refinement.
"""

import jax
import jax.numpy as jnp

import lowbit as lb
from lowbit.experiment import claims


def measure(seed, ablated):
  keys = jax.random.split(jax.random.key(seed), 4)
  mix = jax.random.normal(keys[0], (512, 512)) / 20 + jnp.eye(512)
  x = jax.random.normal(keys[1], (2048, 512)) @ mix
  hessian = x.T @ x / x.shape[0]
  # A dense part off zero, and a tail on one side.
  w = 0.02 * jax.random.normal(keys[2], (128, 512)) + 0.004
  tail = jax.random.bernoulli(keys[3], 0.02, w.shape)
  w = jnp.where(tail, jnp.abs(w) * 3 + 0.02, w)
  spec = 'nf4z@g128' if ablated else 'nf4z@g128:density'
  q = lb.quantize(w, spec)
  fine = q if ablated else lb.solvers.refine(w, hessian, q)

  def error(q):
    d = (lb.dequantize(q) - w).reshape(128, 4, 128)
    local = jnp.stack(
      [hessian[i : i + 128, i : i + 128] for i in range(0, 512, 128)]
    )
    return jnp.einsum('ogi,gij,ogj->og', d, local, d)

  base = float(jnp.sum(error(lb.quantize(w, 'nf4@g128'))))
  start, end = error(q), error(fine)
  return {
    'centred': float(jnp.sum(start)) / base,
    'refined': float(jnp.sum(end)) / base,
    'worst': float(jnp.max(end / start)),
    'minmax': float(jnp.sum(error(lb.quantize(w, 'nf4z@g128')))) / base,
  }


def get_claim():
  return claims.Claim(
    key='daq',
    title='DAQ: Density-Aware Post-Training Weight-Only Quantization for LLMs',
    reference='arXiv:2410.12187',
    recipe='Spec nf4z@g128:density, solvers.refine',
    says="NF4's dense part belongs on the weights' dense part, not on the "
    'middle of their range; sign descent then takes off a tenth or more',
    published='below symmetric and min-max NF4; refined at least 10 % below '
    'the start, no group worse (card)',
    ablation='min-max zero points, no refinement',
    measure=measure,
    holds=lambda n: (
      n['centred'] < 1
      and n['centred'] < n['minmax']
      and n['refined'] < 0.9 * n['centred']
      and n['worst'] <= 1.0001
    ),
    show='relative to symmetric NF4: {minmax:.3f} min-max, {centred:.3f} '
    'centred, {refined:.3f} refined',
  )
