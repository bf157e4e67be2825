"""Rotary positions: Su et al., 2021 (arXiv:2104.09864)."""

import math

import jax
import jax.numpy as jnp


def rope(
  x: jax.Array,
  base: float,
  start=0,
  factors: tuple[float, ...] = (),
  scale: float = 1.0,
) -> jax.Array:
  """Rotary positions, rotate-half order: x [B, T, H, C] -> the same shape.

  The first of the T positions is `start`, an int or an int32 scalar. `factors`
  divide the C / 2 frequencies, see `llama3_factors` and `yarn_factors`; `scale`
  multiplies what is turned, see `yarn_scale`.
  """
  half = x.shape[-1] // 2
  frequency = base ** (-jnp.arange(half, dtype=jnp.float32) / half)
  if factors:
    frequency = frequency / jnp.asarray(factors, jnp.float32)
  position = (jnp.arange(x.shape[1]) + start).astype(jnp.float32)
  angle = jnp.outer(position, frequency)
  cos, sin = (scale * f(angle)[None, :, None] for f in (jnp.cos, jnp.sin))
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


def yarn_factors(
  base: float,
  head_dim: int,
  factor: float,
  context: int,
  fast: float = 32.0,
  slow: float = 1.0,
  whole: bool = True,
) -> tuple[float, ...]:
  """What divides the rotary frequencies under YaRN.

  Frequencies that turn `fast` times or more in the old context are kept, those
  that turn `slow` times or less are slowed by `factor`, and those between are
  blended linearly in their index. Peng et al., 2023 (arXiv:2309.00071).

  Args:
    base: Of the frequencies.
    head_dim: Numbers a head.
    factor: By which the context grew.
    context: Tokens that the model was first trained on.
    fast: Turns from which a frequency is kept.
    slow: Turns up to which it is slowed.
    whole: Round the ends of the blend outwards to whole indices.
  """
  if not 0 < slow < fast or factor <= 0 or context <= 0 or base <= 1:
    raise ValueError(
      '`slow` must lie between 0 and `fast`, `factor` and `context` be '
      f'positive and `base` above 1, got {slow=}, {fast=}, {factor=}, '
      f'{context=}, {base=}.'
    )
  half = head_dim // 2
  # The index whose frequency turns so often: context / (2 pi base^(i / half)).
  index = lambda turns: (
    half * math.log(context / (turns * 2 * math.pi)) / math.log(base)
  )
  first, last = index(fast), index(slow)
  if whole:
    first, last = math.floor(first), math.ceil(last)
  first, last = max(first, 0), min(last, head_dim - 1)
  width = last - first if last != first else 1e-3
  slowed = (min(max((i - first) / width, 0.0), 1.0) for i in range(half))
  return tuple(1 / (s / factor + 1 - s) for s in slowed)


def yarn_scale(factor: float, top: float = 0.0, bottom: float = 0.0) -> float:
  """What YaRN multiplies queries and keys by: 1 + 0.1 ln(factor).

  Args:
    factor: By which the context grew; none up to 1 changes anything.
    top: DeepSeek's mscale; with both, the ratio 1 + 0.1 top ln(factor) to
      1 + 0.1 bottom ln(factor).
    bottom: Its mscale_all_dim.
  """
  grown = lambda m: 1 + 0.1 * m * math.log(factor) if factor > 1 else 1.0
  return grown(top) / grown(bottom) if top and bottom else grown(1.0)


def dynamic_base(
  base: float, head_dim: int, length: int, factor: float, context: int
) -> float:
  """The base under dynamic NTK scaling, which grows beyond the old context.

  The lowest frequency is slowed as much as the text is longer, in the form of
  Hugging Face's rope_type 'dynamic'; NTK-aware scaling after Peng et al., 2023
  (arXiv:2309.00071).

  Args:
    base: Of the frequencies, up to `context` tokens.
    head_dim: Numbers a head, more than 2.
    length: Tokens of the text.
    factor: How fast it grows.
    context: Tokens that the model was trained on.
  """
  growth = factor * max(length, context) / context - (factor - 1)
  return base * growth ** (head_dim / (head_dim - 2))
