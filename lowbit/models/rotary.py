"""Rotary positions: Su et al., 2021 (arXiv:2104.09864)."""

import math

import jax
import jax.numpy as jnp


def rope(
  x: jax.Array, base: float, start=0, factors: tuple[float, ...] = ()
) -> jax.Array:
  """Rotary positions, rotate-half order: x [B, T, H, C] -> the same shape.

  The first of the T positions is `start`, an int or an int32 scalar. `factors`
  divide the C / 2 frequencies, see `llama3_factors`.
  """
  half = x.shape[-1] // 2
  frequency = base ** (-jnp.arange(half, dtype=jnp.float32) / half)
  if factors:
    frequency = frequency / jnp.asarray(factors, jnp.float32)
  position = (jnp.arange(x.shape[1]) + start).astype(jnp.float32)
  angle = jnp.outer(position, frequency)
  cos, sin = (f(angle)[None, :, None, :] for f in (jnp.cos, jnp.sin))
  a, b = jnp.split(x.astype(jnp.float32), 2, axis=-1)
  rotated = jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)
  return rotated.astype(x.dtype)


def llama3_factors(
  base: float,
  head_dim: int,
  factor: float,
  low: float,
  high: float,
  context: int,
) -> tuple[float, ...]:
  """What divides the rotary frequencies of Llama 3.1 and later.

  Waves longer than context / low are slowed by `factor`, those shorter than
  context / high are kept, and those between are blended linearly in the number
  of their turns in the old context. Dubey et al., 2024 (arXiv:2407.21783), in
  the form of Hugging Face's rope_type 'llama3'.

  Args:
    base: Of the frequencies.
    head_dim: Numbers a head.
    factor: By which the context grew.
    low: Turns in `context` below which a frequency is slowed.
    high: Turns above which it is kept.
    context: Tokens that the model was first trained on.
  """
  if not low < high or factor <= 0:
    raise ValueError(
      f'`low` must be below `high` and `factor` positive, got {low=}, {high=}, '
      f'{factor=}.'
    )
  half = head_dim // 2
  factors = []
  for i in range(half):
    turns = context * base ** (-i / half) / (2 * math.pi)
    kept = min(max((turns - low) / (high - low), 0.0), 1.0)
    factors.append(1 / (kept + (1 - kept) / factor))
  return tuple(factors)
