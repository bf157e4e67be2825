"""Uniform noise for stochastic rounding, cheap enough to fuse.

`jax.random.uniform` runs its cipher in several passes over memory, which costs
ten times what quantizing does. Rounding needs no cipher: here a word of noise
is an integer hash of the element's index, keyed by 64 bits drawn from the JAX
key, a dozen instructions inside the same fused loop.
"""

import jax
import jax.numpy as jnp
import numpy as np


def uniform(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
  """Uniform multiples of 2^-24 in [0, 1), float32.

  Each element is uniform over keys, and keys and elements are independent as
  far as a 32-bit hash goes: good for rounding, not for cryptography. The
  stream is not that of `jax.random.uniform`, and repeats after 2^32 elements.

  Args:
    key: PRNG key of any JAX implementation; consumed.
    shape: Of the noise.
  """
  low, high = jax.random.bits(key, (2,), jnp.uint32)
  word = _mix(_mix(_index(shape) ^ low) + high)
  return (word >> np.uint32(8)).astype(jnp.float32) * np.float32(2**-24)


def _index(shape: tuple[int, ...]) -> jax.Array:
  """The row-major index of each element, uint32."""
  index = jnp.zeros(shape, jnp.uint32)
  stride = 1
  for axis in reversed(range(len(shape))):
    position = jax.lax.broadcasted_iota(jnp.uint32, shape, axis)
    index = index + position * np.uint32(stride % 2**32)
    stride *= shape[axis]
  return index


def _mix(word: jax.Array) -> jax.Array:
  """A bijection of 32-bit words in which each bit reaches every other.

  Two rounds of xor-shift and multiply, constants of Wellons' `lowbias32`
  (public domain), found by a search for the smallest avalanche bias.
  """
  word = (word ^ (word >> np.uint32(16))) * np.uint32(0x7FEB352D)
  word = (word ^ (word >> np.uint32(15))) * np.uint32(0x846CA68B)
  return word ^ (word >> np.uint32(16))
