"""Stuck bits: which values a faulty memory cell can still hold.

Bits of a two's complement code that are stuck at 0 or 1 leave a set of codes;
a weight goes to the nearest of their values. Biswas and Dave et al.,
Regularization-based quantization-, fault- and variability-aware training, 2025
(arXiv:2503.01297).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Stuck(NamedTuple):
  """Faults of each code, the same for the life of a device."""

  where: jax.Array  # int32 [...], the stuck bits.
  value: jax.Array  # int32 [...], what they hold, 0 elsewhere.


def draw(
  shape: tuple[int, ...], bits: int, rate: float, key: jax.Array
) -> Stuck:
  """Faults of a device: each bit is stuck with this probability, at 0 or 1."""
  which, what = jax.random.split(key)
  place = jnp.asarray(2 ** np.arange(bits), jnp.int32)
  shape = (*shape, bits)
  place = place.reshape((1,) * (len(shape) - 1) + (bits,))
  pick = lambda hit: jnp.sum(jnp.where(hit, place, 0), axis=-1)
  stuck = jax.random.uniform(which, shape) < rate
  high = jax.random.bernoulli(what, 0.5, shape)
  return Stuck(pick(stuck), pick(stuck & high))


def apply_faults(codes: jax.Array, faults: Stuck, bits: int) -> jax.Array:
  """What is read back of two's complement codes: int32."""
  field = codes.astype(jnp.int32) & (2**bits - 1)
  field = (field & ~faults.where) | faults.value
  sign = 2 ** (bits - 1)
  return (field ^ sign) - sign


def snap(x: jax.Array, faults: Stuck, bits: int) -> jax.Array:
  """The nearest whole number that each cell can hold: float32, like `x`.

  Args:
    x: Weights in units of the step.
    faults: Of the same shape.
    bits: Width of the codes.
  """
  best = jnp.full(x.shape, jnp.inf, jnp.float32)
  for code in range(-(2 ** (bits - 1)), 2 ** (bits - 1)):
    value = apply_faults(jnp.full(x.shape, code), faults, bits)
    value = value.astype(jnp.float32)
    closer = jnp.abs(value - x) < jnp.abs(best - x)
    best = jnp.where(closer, value, best)
  return best


def penalty(x: jax.Array, nearest: jax.Array) -> jax.Array:
  """mean (x - nearest)^2: what pulls weights to values that exist.

  Its gradient in x is 2 (x - nearest) / n; `nearest` is held.
  """
  return jnp.mean((x - jax.lax.stop_gradient(nearest)) ** 2)
