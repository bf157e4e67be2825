"""fake_quantize, and what its gradient is taken to be.

An estimator is a function (x, q, inside) -> y whose value is q, the quantized
x, and whose gradient with respect to x is the estimate; `inside` marks the
elements that did not saturate (for `straight_through` it is None).
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from lowbit.quantize import fused, qtensor
from lowbit.quantize import spec as spec_lib

Estimator = Callable[[jax.Array, jax.Array, jax.Array | None], jax.Array]


@jax.custom_jvp
def straight_through(x, q, inside):
  """dy/dx = 1: Bengio et al., 2013 (arXiv:1308.3432)."""
  del x, inside
  return q


@straight_through.defjvp
def _straight_through_jvp(primals, tangents):
  return primals[1], tangents[0]


@jax.custom_jvp
def clipped(x, q, inside):
  """dy/dx = 1 where x did not saturate, and 0 where it did."""
  del x, inside
  return q


@clipped.defjvp
def _clipped_jvp(primals, tangents):
  _, q, inside = primals
  return q, jnp.where(inside, tangents[0], jnp.zeros_like(tangents[0]))


def fake_quantize(
  x: jax.Array,
  spec: spec_lib.Spec | str,
  axis: int | tuple[int, ...] = -1,
  key: jax.Array | None = None,
  estimator: Estimator = straight_through,
) -> jax.Array:
  """dequantize(quantize(x)), in the dtype of `x`, with a gradient.

  Args:
    x: Float array.
    spec: How, or its name.
    axis: The contraction axis or axes.
    key: PRNG key for stochastic rounding.
    estimator: `straight_through` or `clipped`, or a function like them.

  Returns:
    An array like `x`.

  Raises:
    TypeError, ValueError: As `qtensor.quantize`.
  """
  qtensor.check_float(x)
  asks = estimator is not straight_through
  constant = jax.lax.stop_gradient(x)
  y, inside = fused.round_trip(constant, spec, axis, key, asks)
  return estimator(x, y, inside)
