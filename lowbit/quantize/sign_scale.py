"""DenseShift: weights +-2^p without zero, from a latent for each decision.

w = (2 H(x_0) - 1) 2^P, P_t = H(x_t) (P_{t-1} + 1) from P_0 = 0, t = 1..T with
T = 2^(b-1) - 1: a sign, and as many growths, each of which a latent below zero
starts again from 1. H is the step at zero, straight through. Small latents flip
easily, where one latent rounded in the log domain freezes. Li et al.,
DenseShift, 2023 (arXiv:2208.09708). The depth of the recursion follows from the
levels, 2^(b-1) powers; how the released code scales the latents' rates is not
known here, and they are left as they are.
"""

import math

import jax
import jax.numpy as jnp


def growths(bits: int) -> int:
  """T, the number of latents besides the sign.

  Raises:
    ValueError: Unless `bits` lies in 2..4.
  """
  if not 2 <= bits <= 4:
    raise ValueError(
      f'`bits` must lie in 2..4, got {bits}. One bit is a sign, and five would '
      'take 16 latents a weight.'
    )
  return 2 ** (bits - 1) - 1


def init(
  key: jax.Array, shape: tuple[int, ...], bits: int, deviation: float = 1e-3
) -> jax.Array:
  """Latents [1 + T, *shape], N(0, deviation^2), float32; index 0 is the sign.

  Args:
    key: PRNG key.
    shape: Of the weights.
    bits: 2 for +-1, +-2; 3 for up to 8; 4 for up to 128.
    deviation: The paper's 1e-3 lets them flip early.
  """
  return deviation * jax.random.normal(key, (1 + growths(bits), *shape))


@jax.custom_jvp
def heaviside(x: jax.Array) -> jax.Array:
  """1 where x > 0, else 0; gradient 1."""
  return (x > 0).astype(x.dtype)


@heaviside.defjvp
def _heaviside_jvp(primals, tangents):
  return heaviside(primals[0]), tangents[0]


def weights(latents: jax.Array) -> jax.Array:
  """Signed powers of two [*shape], differentiable in latents [1 + T, *shape].

  dw/dx_0 = 2^(P + 1), and dw/dx_t = w ln 2 dP/dx_t, where dP/dx_t is
  P_{t-1} + 1 times the H(x_s) of all s > t.
  """
  sign = 2 * heaviside(latents[0]) - 1
  power = jnp.zeros_like(latents[0])
  for x in latents[1:]:
    power = heaviside(x) * (power + 1)
  # exp2, whose value is made exact: a power of two is never a rounded one.
  soft = jnp.exp(power * jnp.asarray(math.log(2), power.dtype))
  return sign * (soft + jax.lax.stop_gradient(jnp.round(soft) - soft))
