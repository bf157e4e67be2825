"""SmoothQuant: moves the range of activations into the weights."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from lowbit.transforms import fusion
from lowbit.transforms import structure as structure_lib


def smooth_scale(
  activation_absmax: jax.Array, weight_absmax: jax.Array, alpha: float
) -> jax.Array:
  """s = max(amax_x^alpha / amax_w^(1 - alpha), 1e-5), for each input channel.

  The input is divided by s and the weight's rows are multiplied. A channel
  without activations or weights keeps s = 1. Xiao et al., SmoothQuant, 2022
  (arXiv:2211.10438).

  Args:
    activation_absmax: [..., in].
    weight_absmax: [..., in], over all outputs of all readers.
    alpha: Migration strength in [0, 1]; 0.5 in the paper.
  """
  if not 0 <= alpha <= 1:
    raise ValueError(f'`alpha` must lie in [0, 1], got {alpha}.')
  scale = activation_absmax**alpha / weight_absmax ** (1 - alpha)
  dead = (activation_absmax == 0) | (weight_absmax == 0)
  return jnp.where(dead, 1.0, jnp.maximum(scale, 1e-5))


def smooth(
  params: Mapping,
  structure: structure_lib.Structure,
  stats: Mapping,
  alpha: float = 0.5,
) -> dict:
  """Smooths every norm -> linears group of a transformer.

  Args:
    params: Params tree with Flax kernels [..., in, out].
    structure: Where its tensors lie.
    stats: Kernel path -> statistics with `.absmax` [..., in].
    alpha: Migration strength.

  Returns:
    Params of the same function, scales folded in the norms' gains.

  Raises:
    KeyError: If `stats` lacks a reader of a norm.
  """
  for norm, readers in structure.norms:
    weights = [structure_lib.get(params, r) for r in readers]
    tops = [jnp.max(jnp.abs(w), axis=-1) for w in weights]
    weight_absmax = jnp.max(jnp.stack(tops), axis=0)
    absmax = stats[readers[0]].absmax
    scale = smooth_scale(absmax, weight_absmax, alpha)
    params = fusion.fold_scale(params, structure, norm, scale)
  return dict(params)
