"""MLC STT-RAM: fp16 weights in two-bit cells, and what makes them err.

A cell with bits 01 or 10 is soft: it takes two write steps and may err. fp16
weights below 2 in magnitude never use exponent bit 14, so that the sign is
kept twice, and each word takes the variant with the fewest soft cells. Zadeh
et al., 2020 (arXiv:2001.08806); which bits rotate, and what the low nibble is
rounded to, is worked out here: the paper does not print it.
"""

import jax
import jax.numpy as jnp

VARIANTS = ('as it is', 'rotated right by one bit', 'low nibble rounded')
BODY = 0x3FFF  # The 14 bits below the protected sign.


def soft_cells(words: jax.Array) -> jax.Array:
  """Number of cells with unequal bits: uint16 [...] -> int32 [...]."""
  differ = (words ^ (words >> jnp.uint16(1))) & jnp.uint16(0x5555)
  return jax.lax.population_count(differ).astype(jnp.int32)


def protect_sign(words: jax.Array) -> jax.Array:
  """Copies the sign into bit 14: the first cell becomes 00 or 11.

  Args:
    words: uint16 patterns of fp16 numbers below 2 in magnitude.

  Returns:
    uint16 words; `restore_sign` is the inverse.
  """
  sign = words >> jnp.uint16(15)
  return (words & jnp.uint16(0xBFFF)) | (sign << jnp.uint16(14))


def restore_sign(words: jax.Array) -> jax.Array:
  """Clears bit 14."""
  return words & jnp.uint16(0xBFFF)


def _variants(words):
  body = words & jnp.uint16(BODY)
  head = words & jnp.uint16(0xC000)
  one = jnp.uint16(1)
  rotated = (body >> one) | ((body & one) << jnp.uint16(13))
  # 00 00, 00 11, 11 00, 11 11: the nearest of 0, 3, 12, 15.
  nibble = body & jnp.uint16(15)
  nearest = jnp.where(
    nibble < 2, 0, jnp.where(nibble < 8, 3, jnp.where(nibble < 14, 12, 15))
  ).astype(jnp.uint16)
  rounded = (body & jnp.uint16(0x3FF0)) | nearest
  return jnp.stack([words, head | rotated, head | rounded])


def encode(words: jax.Array, group: int = 1) -> tuple[jax.Array, jax.Array]:
  """The variant of each word, or group of words, with the fewest soft cells.

  Args:
    words: uint16 [..., n], sign protected.
    group: Neighbours that share a choice, 1 to 16 in the paper; divides n.

  Returns:
    `(stored, choice)`: uint16 words [..., n], and uint8 indices into `VARIANTS`
    [..., n / group], two bits of metadata a group that lie in reliable cells.

  Raises:
    ValueError: If the group does not divide n.
  """
  if group < 1 or words.shape[-1] % group:
    raise ValueError(
      f'`group` must divide the last axis of `words` {words.shape}, got '
      f'{group}.'
    )
  variants = _variants(words)
  soft = soft_cells(variants)
  soft = jnp.sum(soft.reshape(*soft.shape[:-1], -1, group), axis=-1)
  choice = jnp.argmin(soft, axis=0)
  each = jnp.repeat(choice, group, axis=-1)
  stored = jnp.take_along_axis(variants, each[None], axis=0)[0]
  return stored, choice.astype(jnp.uint8)


def decode(stored: jax.Array, choice: jax.Array) -> jax.Array:
  """Turns rotations back; a rounded nibble stays rounded.

  Args:
    stored: uint16 [..., n].
    choice: uint8 [..., n / group], from `encode`.
  """
  one = jnp.uint16(1)
  choice = jnp.repeat(choice, stored.shape[-1] // choice.shape[-1], axis=-1)
  body, head = stored & jnp.uint16(BODY), stored & jnp.uint16(0xC000)
  back = ((body << one) & jnp.uint16(BODY)) | (body >> jnp.uint16(13))
  return jnp.where(choice == 1, head | back, stored)


def inject(words: jax.Array, probability: float, key: jax.Array) -> jax.Array:
  """Each soft cell errs with this probability: one of its bits flips.

  Args:
    words: uint16 [...].
    probability: Of a soft error; published rates are 1.5e-2 to 2e-2.
    key: PRNG key.

  Returns:
    uint16 words; hard cells are never touched.
  """
  which, hit = jax.random.split(key)
  shape = (8, *words.shape)
  cell = (jnp.arange(8, dtype=jnp.uint16) * jnp.uint16(2)).reshape(
    (8,) + (1,) * words.ndim
  )
  pair = (words[None] >> cell) & jnp.uint16(3)
  is_soft = (pair == 1) | (pair == 2)
  errs = is_soft & (jax.random.uniform(hit, shape) < probability)
  bit = jax.random.bernoulli(which, 0.5, shape).astype(jnp.uint16)
  flips = jnp.where(errs, jnp.uint16(1) << (cell + bit), jnp.uint16(0))
  return jax.lax.reduce(flips, jnp.uint16(0), jax.lax.bitwise_xor, (0,)) ^ words
