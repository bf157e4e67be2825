"""Gradients in few bits: adapted intervals, and bits spent on few groups."""

import jax
import jax.numpy as jnp

# --- Adapted intervals: Kim et al., Toward INT4 Fixed-Point Training via
# Exploring Quantization Error for Gradients, ECCV 2024.

GAMMA_STEP = 1e-3


def _tail(bits: int, alpha: float) -> float:
  """Wanted fraction of elements beyond the interval."""
  return alpha / (2**bits - 1)


def _outside(g, gamma):
  magnitude = jnp.abs(g)
  return jnp.mean((magnitude > gamma * jnp.max(magnitude)).astype(jnp.float32))


def fit_interval(g: jax.Array, bits: int, alpha: float = 1e-3) -> jax.Array:
  """The gamma at which the fraction alpha / (2^bits - 1) of |g| lies outside.

  There the error of the large gradients, the fraction `alpha`, is least. It is
  where the sign steps of `move_interval` end, found by one sort.

  Args:
    g: float32, any shape.
    bits: Of the quantizer.
    alpha: Which fraction counts as large.

  Returns:
    float32 [] in [0.001, 1]: the interval is [-gamma, gamma] max|g|.
  """
  magnitude = jnp.abs(g.reshape(-1))
  edge = jnp.quantile(magnitude, 1 - _tail(bits, alpha))
  top = jnp.max(magnitude)
  gamma = edge / jnp.where(top == 0, 1.0, top)
  return jnp.clip(gamma, GAMMA_STEP, 1.0)


def move_interval(
  gamma: jax.Array, g: jax.Array, bits: int, alpha: float = 1e-3
) -> jax.Array:
  """One step of 0.001 toward `fit_interval`, as training takes them."""
  error = _outside(g, gamma) - _tail(bits, alpha)
  return jnp.clip(gamma + GAMMA_STEP * jnp.sign(error), GAMMA_STEP, 1.0)


def quantize_interval(
  g: jax.Array, gamma: jax.Array, bits: int, key: jax.Array
) -> jax.Array:
  """g on 2^bits - 1 levels over [-gamma, gamma] max|g|, 0 among them.

  Noise is added before values are clipped, so that it is unbiased inside.
  """
  high = 2.0 ** (bits - 1) - 1
  step = gamma * jnp.max(jnp.abs(g)) / high
  y = g / jnp.where(step == 0, 1.0, step)
  y = jnp.floor(y + jax.random.uniform(key, g.shape))
  return jnp.clip(y, -high, high) * step


# --- Groups: 1-bit fully quantized training (arXiv:2408.14267).


def quantize_groups(g: jax.Array, bits: int, key: jax.Array) -> jax.Array:
  """Each row of g [N, D] on 2^bits levels from its min to its max, unbiased."""
  low = jnp.min(g, axis=1, keepdims=True)
  step = (jnp.max(g, axis=1, keepdims=True) - low) / (2**bits - 1)
  y = (g - low) / jnp.where(step == 0, 1.0, step)
  return low + step * jnp.floor(y + jax.random.uniform(key, g.shape))


def keep_probabilities(ranges: jax.Array, budget: float) -> jax.Array:
  """p_i = min(1, c R_i) with sum p_i = budget: float32 [N].

  Proportional to the ranges the variance is least. c is found by letting the
  groups at 1 out, round by round. All zeros give equal probabilities.

  Args:
    ranges: max - min of each group, [N].
    budget: At most N.
  """
  ranges = jnp.where(jnp.sum(ranges) == 0, jnp.ones_like(ranges), ranges)

  def fill(_, p):
    full = p >= 1
    rest = budget - jnp.sum(full.astype(jnp.float32))
    mass = jnp.sum(jnp.where(full, 0.0, ranges))
    share = ranges * rest / jnp.where(mass == 0, 1.0, mass)
    return jnp.where(full, 1.0, jnp.minimum(share, 1.0))

  start = jnp.zeros_like(ranges)
  return jax.lax.fori_loop(0, min(ranges.shape[0], 32), fill, start)


def prune_groups(g: jax.Array, bits: int, key: jax.Array) -> jax.Array:
  """Activated gradient pruning: `bits` for some rows, none for the others.

  Row i is kept with probability p_i, about proportional to its range, and
  divided by it; N / bits rows are kept on average, so that the cost is one bit
  an element. Unbiased.

  Args:
    g: float32 [N, D], one group a row.
    bits: Of a kept row.
    key: PRNG key.
  """
  keep_key, round_key = jax.random.split(key)
  ranges = jnp.max(g, axis=1) - jnp.min(g, axis=1)
  p = keep_probabilities(ranges, g.shape[0] / bits)
  kept = jax.random.uniform(keep_key, p.shape) < p
  weight = jnp.where(kept, 1 / jnp.where(p == 0, 1.0, p), 0.0)
  return quantize_groups(g, bits, round_key) * weight[:, None]


def top_groups(g: jax.Array, bits: int, key: jax.Array) -> jax.Array:
  """The released variant: the N / bits rows of largest max|g|, not rescaled.

  Biased: small rows are never heard.
  """
  count = max(int(g.shape[0] / bits), 1)
  top = jnp.max(jnp.abs(g), axis=1)
  edge = jax.lax.top_k(top, count)[0][-1]
  kept = (top >= edge)[:, None]
  return jnp.where(kept, quantize_groups(g, bits, key), 0.0)
