"""Pre-shifted exponent bias: per-channel activation scales for free.

A float's exponent bias may differ by channel if it differs by whole steps: the
factor 2^-k goes into the weights, exactly, and the product keeps one scale a
tensor. Liu et al., LLM-FP4, 2023 (arXiv:2310.16836).
"""

import math

import jax
import jax.numpy as jnp

from lowbit import formats, quantize


def pre_shift(absmax: jax.Array, fmt: formats.Minifloat) -> jax.Array:
  """The shift k of each channel: x_j 2^k is quantized with the tensor's scale.

  Channel j has the real bias b_j = 2^E - log2(absmax_j) + log2(2 - 2^-M) - 1,
  and the tensor the smallest of them; k = clip(round(b_j) - round(min b), 0,
  2^E - 1): channels that lie 2^E binades or more below the largest are rescued
  in part only.

  Args:
    absmax: float32 [in], the largest magnitude of each channel.
    fmt: Minifloat of the activations.

  Returns:
    float32 [in], whole numbers in [0, 2^E - 1]; 0 for channels of zeros.
  """
  largest = jnp.where(absmax > 0, absmax, jnp.max(absmax))
  offset = 2**fmt.exponent + math.log2(2 - 2**-fmt.mantissa) - 1
  bias = offset - jnp.log2(largest)
  shift = jnp.rint(bias) - jnp.rint(jnp.min(bias))
  return jnp.clip(shift, 0, 2**fmt.exponent - 1)


def apply_shift(x: jax.Array, w: jax.Array, shift: jax.Array):
  """(x 2^k, 2^-k w): their product is that of (x, w), bit for bit.

  Args:
    x: Float [..., in].
    w: Float [in, out].
    shift: From `pre_shift`.
  """
  shift = shift.astype(jnp.int32)
  up, down = quantize.scales.exp2(shift), quantize.scales.exp2(-shift)
  return jnp.einsum('...i,i->...i', x, up), jnp.einsum('i,io->io', down, w)
