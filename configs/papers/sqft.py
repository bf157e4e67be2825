"""SQFT: adapters that merge into sparse, and into sparse int4, weights.

Half of each row pruned by Wanda, an adapter of rank 8 under the mask: merged,
the matrix keeps every zero, and so do its int4 codes, whose values are what the
forward pass of training saw. The ablation merges the adapter without the mask.
"""

import jax
import jax.numpy as jnp

import lowbit as lb
from lowbit.experiment import claims
from lowbit.solvers import pruning


def measure(seed, ablated):
  keys = jax.random.split(jax.random.key(seed), 4)
  w = jax.random.normal(keys[0], (128, 256)) / 16
  size = jnp.exp(jax.random.normal(keys[3], (256,)))
  x = jax.random.normal(keys[1], (512, 256)) * size[None]
  mask = pruning.wanda_mask(w, lb.solvers.observe(x), 0.5)
  b, a = (
    jax.random.normal(k, s)
    for k, s in zip(jax.random.split(keys[2]), ((128, 8), (8, 256)))
  )
  adapter = b @ a / 200
  seen = jnp.ones_like(mask) if ablated else mask
  sparse = jnp.where(mask, w, 0.0)
  merged = pruning.merge_sparse(sparse, seen, adapter)
  base = lb.quantize(sparse, 'int4z@g64')
  codes = pruning.merge_quantized(sparse, seen, adapter, base)
  # What training multiplies by: scales of the base, codes found anew.
  trained = lb.dequantize(
    lb.quantize.quantize_with(jnp.where(seen, sparse + adapter, 0.0), base)
  )
  again = lb.fake_quantize(lb.dequantize(base) + adapter, 'int4z@g64')
  output = lambda v: x @ v.T
  change = lambda y, z: float(jnp.abs(y - z).max() / jnp.abs(z).max())
  magnitude = jnp.abs(w) >= jnp.median(jnp.abs(w), axis=1, keepdims=True)
  error = lambda m: float(
    jnp.sum((output(jnp.where(m, w, 0)) - output(w)) ** 2)
  )
  return {
    'zeros': float(jnp.mean(merged == 0)),
    'zero_codes': float(jnp.mean(lb.dequantize(codes) == 0)),
    'merge': change(output(lb.dequantize(codes)), output(trained)),
    'requantized': change(output(again), output(lb.dequantize(base) + adapter)),
    'wanda': error(magnitude) / error(mask),
  }


def get_claim():
  return claims.Claim(
    key='sqft',
    title='SQFT: Low-cost Model Adaptation in Low-precision Sparse Foundation '
    'Models',
    reference='arXiv:2410.03750',
    recipe='solvers.pruning',
    says='masked adapters merge without losing a zero, and into int4 codes '
    'without changing an output',
    published='sparsity identical after the merge, 0 % with plain LoRA; codes '
    'exact',
    ablation='no mask on the adapter',
    measure=measure,
    holds=lambda n: (
      n['zeros'] == 0.5
      and n['zero_codes'] >= 0.5
      and n['merge'] == 0
      and n['requantized'] > 0.01
      and n['wanda'] > 1.2
    ),
    show='{zeros:.0%} zeros, {zero_codes:.0%} in int4; outputs change by '
    '{merge:.0e} ({requantized:.0%} if rounded anew)',
  )
