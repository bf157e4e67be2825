"""The meaning: `transforms.apply_hadamard`, then `quantize`."""

import jax
import jax.numpy as jnp

from lowbit import quantize, transforms


def hadamard(x: jax.Array, block: int, spec: quantize.Spec | None = None):
  """x [M, K] times the orthonormal matrices of width `block`.

  Returns:
    An array of the dtype of x; or (codes int8 [M, K], scale [M, 1]).
  """
  y = transforms.hadamard.apply_hadamard(x.astype(jnp.float32), block)
  if spec is None:
    return y.astype(x.dtype)
  q = quantize.quantize(y, spec)
  return q.codes, q.scale
