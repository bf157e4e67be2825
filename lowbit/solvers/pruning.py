"""Wanda's masks, and adapters that merge into sparse or integer weights.

Sun et al., A Simple and Effective Pruning Approach for Large Language Models,
2023 (arXiv:2306.11695); Munoz et al., SQFT, 2024 (arXiv:2410.03750).
"""

import dataclasses

import jax
import jax.numpy as jnp

from lowbit import quantize
from lowbit.solvers import statistics


def wanda_mask(
  w: jax.Array, stats: statistics.Statistics, sparsity: float
) -> jax.Array:
  """Which weights stay: the largest |W_ij| |X_j| of each output.

  Args:
    w: Float [out, in].
    stats: Statistics of the layer's input.
    sparsity: Share of each row that goes, in [0, 1).

  Returns:
    bool [out, in]; every row keeps the same number.
  """
  if not 0 <= sparsity < 1:
    raise ValueError(f'`sparsity` must lie in [0, 1), got {sparsity}.')
  norm = jnp.sqrt(jnp.diagonal(stats.hessian))
  score = jnp.abs(w.astype(jnp.float32)) * norm[None]
  gone = round(sparsity * w.shape[1])
  rank = jnp.argsort(jnp.argsort(score, axis=1), axis=1)
  return rank >= gone


def merge_sparse(
  w: jax.Array, mask: jax.Array, adapter: jax.Array
) -> jax.Array:
  """w + mask adapter: the merged matrix has the zeros of the mask."""
  return jnp.where(mask, w + adapter, 0.0)


def merge_quantized(
  w: jax.Array, mask: jax.Array, adapter: jax.Array, like: quantize.QTensor
) -> quantize.QTensor:
  """The merged matrix in the scales and zero points of the base.

  The forward pass of training is its decoded value, straight-through, so that
  merging changes nothing: codes are what was trained.

  Args:
    w: Sparse float weights [out, in].
    mask: bool [out, in].
    adapter: b a, [out, in].
    like: The quantized base, whose scales are kept; zero must be a code, or
      sparsity is lost.
  """
  merged = merge_sparse(w, mask, adapter)
  codes = quantize.quantize_with(merged, like).codes
  return dataclasses.replace(like, codes=codes)
