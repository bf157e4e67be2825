"""Every bit of every weight trained as a real number of its own.

w = alpha (-1)^b_s sum_k 2^k b_k, where bit b is 1 where its latent x > 0, with
the straight-through gradient 1. Sign and magnitude, not two's complement: there
are two codes of zero. Ivan, Training DNNs bit-wise, 2022 (arXiv:2202.09571).
The rule for alpha is not printed there: here it gives random bits the standard
deviation of He's initializer.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np


def he_alpha(bits: int, fan_in: int) -> float:
  """The alpha at which fair random bits have variance 2 / fan_in.

  The magnitude is then uniform on 0..m, m = 2^(bits-1) - 1, of mean square
  m (2 m + 1) / 6.
  """
  if not 2 <= bits <= 32:
    raise ValueError(f'`bits` must lie in 2..32, got {bits}.')
  m = 2 ** (bits - 1) - 1
  return math.sqrt(2 / fan_in) / math.sqrt(m * (2 * m + 1) / 6)


def init(key: jax.Array, shape: tuple[int, ...], bits: int) -> jax.Array:
  """Latents [bits, *shape], float32, N(0, 0.01^2); index 0 is the sign.

  Index k + 1 is the magnitude bit of weight 2^k.
  """
  return 0.01 * jax.random.normal(key, (bits, *shape))


@jax.custom_jvp
def step(x: jax.Array) -> jax.Array:
  """1 where x > 0, else 0; gradient 1."""
  return (x > 0).astype(x.dtype)


@step.defjvp
def _step_jvp(primals, tangents):
  return step(primals[0]), tangents[0]


def weights(latents: jax.Array, alpha: float) -> jax.Array:
  """The weights of latents [bits, *shape], differentiable."""
  bits = step(latents)
  powers = np.float32(2.0) ** np.arange(latents.shape[0] - 1, dtype=np.float32)
  magnitude = jnp.tensordot(powers, bits[1:], axes=1)
  return alpha * (1 - 2 * bits[0]) * magnitude


def trainable(bits: int, top: int) -> np.ndarray:
  """Mask [bits] of the sign and the top - 1 highest magnitude bits.

  Multiply gradients of latents by it (reshaped to [bits, 1, ...]), or give
  `optax.masked` a tree of masks; other bits keep their random values.
  """
  if not 1 <= top <= bits:
    raise ValueError(f'`top` must lie in 1..{bits}, got {top}.')
  mask = np.zeros(bits, bool)
  mask[0] = True
  mask[bits - top + 1 :] = True
  return mask


def only(latent_gradients: jax.Array, mask: np.ndarray) -> jax.Array:
  """Gradients of latents with the untrained bits at zero."""
  shape = (-1,) + (1,) * (latent_gradients.ndim - 1)
  keep = jnp.asarray(mask.reshape(shape))
  return jnp.where(keep, latent_gradients, jnp.zeros_like(latent_gradients))


def to_planes(latents: jax.Array) -> jax.Array:
  """Bits as uint8 [bits, *shape]: what is stored."""
  return (latents > 0).astype(jnp.uint8)


def capacity_bytes(latents: jax.Array, mask: np.ndarray) -> int:
  """Whole bytes that the untrained bits of a layer can carry."""
  return int((~mask).sum()) * latents[0].size // 8


def embed(latents: jax.Array, mask: np.ndarray, payload: bytes) -> jax.Array:
  """Writes a payload in the untrained bits; the weights' other bits stay.

  Raises:
    ValueError: If it does not fit.
  """
  room = capacity_bytes(latents, mask)
  if len(payload) > room:
    raise ValueError(
      f'`payload` has {len(payload)} bytes, and the untrained bits hold '
      f'{room}. Shorten it, or train fewer bits.'
    )
  free = np.array(latents[np.flatnonzero(~mask)], np.float32)
  flat = free.reshape(-1)
  bits = np.unpackbits(np.frombuffer(payload, np.uint8))
  flat[: len(bits)] = np.where(bits == 1, 0.01, -0.01)
  return latents.at[np.flatnonzero(~mask)].set(jnp.asarray(free))


def extract(latents: jax.Array, mask: np.ndarray, size: int) -> bytes:
  """The first `size` bytes that `embed` wrote."""
  free = np.asarray(latents[np.flatnonzero(~mask)]).reshape(-1)
  return np.packbits(free[: 8 * size] > 0).tobytes()
