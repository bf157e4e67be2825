"""The meaning: `quantize.quantize`, and `quantize.pack` of 4-bit codes."""

import jax

from lowbit import quantize


def quantize_rows(x: jax.Array, spec: quantize.Spec):
  """QTensor, or PackedQTensor below 8 bits, of x [M, K] along its last axis."""
  q = quantize.quantize(x, spec)
  return q if spec.format.bits == 8 else quantize.pack(q)
