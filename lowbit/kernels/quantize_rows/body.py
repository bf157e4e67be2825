"""Scale and round, as both kernels do it, and as `quantize` does."""

import jax.numpy as jnp
import numpy as np

from lowbit.kernels.int_matmul import parts
from lowbit.quantize import scales

LARGEST = np.float32(np.finfo(np.float32).max)


def largest(x, carry):
  """Running (largest finite, 1 where one was not finite) of magnitudes.

  Maxima drop NaN in some compilers, so that it is carried beside them.
  """
  amax, bad = carry
  finite = x <= LARGEST
  amax = jnp.maximum(amax, jnp.where(finite, x, np.float32(0)))
  return amax, jnp.where(finite, bad, np.float32(1))


def join(carry):
  """One largest magnitude of what `largest` gathered; NaN if any was bad."""
  amax, bad = carry
  return jnp.where(jnp.max(bad) > 0, np.float32(np.nan), jnp.max(amax))


def row_largest(x):
  """Largest magnitude of each row of x, [rows, 1]; NaN if any is not finite."""
  x = jnp.abs(x)
  finite = x <= LARGEST
  most = lambda a: jnp.max(a, axis=1, keepdims=True)
  bad = most(jnp.where(finite, np.float32(0), np.float32(1)))
  amax = most(jnp.where(finite, x, np.float32(0)))
  return jnp.where(bad > 0, np.float32(np.nan), amax)


def scale_of(amax, high: int):
  """The scale of rows or groups with largest magnitude `amax`, float32.

  1 for zeros, NaN where there is a NaN or an infinity, as `scales.guard` has
  it; comparisons stand in for `isfinite`.
  """
  scale = jnp.maximum(scales.divide(amax, high), np.float32(scales.TINY))
  scale = jnp.where(amax == 0, np.float32(1), scale)
  finite = amax <= LARGEST
  return jnp.where(finite, scale, np.float32(np.nan))


def codes_of(x, scale, high: int, rint=parts.rint_by_floor):
  """int32 codes of x in -high..high, ties to even; 0 for NaN."""
  # XLA would turn a division by a broadcast into a product: `scales.divide`.
  y = x / jnp.where(x == 0, np.float32(1), scale)
  y = jnp.where(y == y, y, np.float32(0))
  y = jnp.clip(y, np.float32(-high), np.float32(high))
  return rint(y).astype(jnp.int32)
