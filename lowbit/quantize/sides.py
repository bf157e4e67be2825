"""Side data of a block: which member of a `Choice`, or a second scale.

Blocked arrays throughout: `xb` is a `Blocks.split` array, and side data are
spread to broadcast against it.
"""

import jax
import jax.numpy as jnp

from lowbit import formats
from lowbit.quantize import scales


def fit_choice(xb, fmt: formats.Choice, rule, axes):
  """Scale and member of each block, by the least squared error.

  Returns:
    `(scale, index)`, float32 and uint8, `axes` kept at length one.
  """
  found = [rule(xb, member, axes) for member in fmt.members]

  def error(member, scale):
    y = member.round(scales.divide(xb, scale)) * scale
    return jnp.sum((xb - y) ** 2, axis=axes, keepdims=True)

  errors = jnp.stack([error(m, s) for m, s in zip(fmt.members, found)])
  index = jnp.argmin(errors, axis=0)
  scale = jnp.take_along_axis(jnp.stack(found), index[None], axis=0)[0]
  return scale, index.astype(jnp.uint8)


def fit_two_sided(xb, fmt: formats.TwoSided, rule, axes):
  """Scales of the values above and of those below zero.

  A rule sees each side mirrored, so that absmax and clipping mean the same on
  both. A side without values takes the scale of the other.
  """
  mirrored = lambda side: jnp.stack([side, -side])
  inner = (0, *(a + 1 for a in axes))
  above, below = jnp.maximum(xb, 0.0), jnp.minimum(xb, 0.0)
  # NaN and Inf reach both scales, whichever side they are on.
  poison = jnp.sum(xb * 0.0, axis=axes, keepdims=True)
  fit = lambda side: rule(mirrored(side), fmt.inner, inner)[0] + poison
  plus, minus = fit(above), fit(below)
  is_empty = lambda side: jnp.all(side == 0, axis=axes, keepdims=True)
  return (
    jnp.where(is_empty(above), minus, plus),
    jnp.where(is_empty(below), plus, minus),
  )


def encode(y, fmt: formats.Format, side, rounding, noise) -> jax.Array:
  """Codes of scaled blocks; `side` is the member index of a `Choice`."""
  if isinstance(fmt, formats.TwoSided):
    return fmt.inner.encode(y, rounding, noise)
  if not isinstance(fmt, formats.Choice):
    return fmt.encode(y, rounding, noise)
  coded = [m.encode(y, rounding, noise) for m in fmt.members]
  return _pick(coded, side)


def decode(codes, fmt: formats.Format, side) -> jax.Array:
  """Unscaled values of blocked codes."""
  if isinstance(fmt, formats.TwoSided):
    return fmt.inner.decode(codes)
  if not isinstance(fmt, formats.Choice):
    return fmt.decode(codes)
  return _pick([m.decode(codes) for m in fmt.members], side)


def round(y, fmt: formats.Format, side, rounding, noise) -> jax.Array:
  """decode(encode(y)), without the codes where a format can do that."""
  if isinstance(fmt, formats.TwoSided):
    return fmt.inner.round(y, rounding, noise)
  if not isinstance(fmt, formats.Choice):
    return fmt.round(y, rounding, noise)
  return _pick([m.round(y, rounding, noise) for m in fmt.members], side)


def _pick(candidates, index):
  chosen = candidates[0]
  for k, candidate in enumerate(candidates[1:], 1):
    chosen = jnp.where(index == k, candidate, chosen)
  return chosen


def affine(xb, fmt: formats.Format, rule, axes):
  """Scale and real zero point for a format of any values.

  The rule's range [low, high] meets the ends [first, last] of the format:
  s = (high - low) / (last - first), zero = last - high / s; x is about
  (value - zero) s.
  """
  values = fmt.values()
  first, last = float(values[0]), float(values[-1])
  low, high = rule.range(xb, axes)

  def fit(ratio):
    scale = scales.width(low * ratio, high * ratio, last - first)
    return scale, jnp.float32(last) - scales.divide(high * ratio, scale)

  ratio = jnp.float32(1)
  if isinstance(rule, scales.Mse):

    def dequantized(ratio):
      scale, zero = fit(ratio)
      return (fmt.round(scales.divide(xb, scale) + zero) - zero) * scale

    ratio = rule.search(xb, axes, dequantized)
  return fit(ratio)
