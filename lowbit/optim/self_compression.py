"""Self-compression: bit widths learned with the weights, per output channel.

q(x; b, e) = 2^e round(clip(2^-e x, -2^(b-1), 2^(b-1) - 1)), where b and e are
real numbers that are trained; the size in bits joins the loss. Csefalvay and
Imber, Self-Compressing Neural Networks, 2023 (arXiv:2301.13142).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class Depth(NamedTuple):
  """Learned numbers of one layer, float32 [out]; trained with the weights."""

  bits: jax.Array  # Width b; at most 0 prunes the channel.
  exponent: jax.Array  # log2 of the step.


def init(out: int, bits: float = 8.0, exponent: float = -8.0) -> Depth:
  """The same width and step for every channel.

  At the beginning 2^(exponent + bits - 1) should cover the weights.
  """
  full = lambda value: jnp.full((out,), value, jnp.float32)
  return Depth(full(bits), full(exponent))


@jax.custom_jvp
def _round(x):
  return jnp.rint(x)


@_round.defjvp
def _round_jvp(primals, tangents):
  return _round(*primals), tangents[0]


def quantized(w: jax.Array, depth: Depth, axis: int = -1) -> jax.Array:
  """The quantized weights, differentiable in `w`, `bits` and `exponent`.

  Rounding passes gradients straight through; clipping does not, so that b
  learns from the weights that it clips, and e from all.

  Args:
    w: float32, any shape.
    depth: Numbers for each index of `axis`.
    axis: The output channels.

  Raises:
    ValueError: If the lengths differ.
  """
  if depth.bits.shape != (w.shape[axis],):
    raise ValueError(
      f'`depth` has shape {depth.bits.shape}, and axis {axis} of `w` '
      f'{w.shape} has {w.shape[axis]} channels. Make it with init(out).'
    )
  shape = [1] * w.ndim
  shape[axis] = -1
  bits = jax.nn.relu(depth.bits).reshape(shape)
  step = jnp.exp2(depth.exponent).reshape(shape)
  half = jnp.exp2(bits - 1)
  # -2^(b-1) <= x <= 2^(b-1) - 1; at b = 0 the ends cross, and 0 is meant.
  y = jnp.minimum(jnp.maximum(w / step, -half), half - 1)
  return step * jnp.where(bits > 0, _round(y), 0.0 * y)


def size_bits(
  depth: Depth, fan_in: int, kernel: int = 1, alive: jax.Array | None = None
) -> jax.Array:
  """Bits of a layer's weights, differentiable: fan_in kernel sum(relu(b)).

  Args:
    depth: Of the layer.
    fan_in: Input channels.
    kernel: Elements of one filter, height times width.
    alive: The producing layer's `depth.bits` [fan_in]: pruned inputs are not
      paid for. Its count is piecewise constant, and has no gradient.
  """
  count = jnp.float32(fan_in)
  if alive is not None:
    count = jnp.sum((alive > 0).astype(jnp.float32))
  return count * kernel * jnp.sum(jax.nn.relu(depth.bits))


def stored_bits(depth: Depth, weights_a_channel: int) -> int:
  """Bits at rest: each channel's width rounded up, pruned channels none."""
  whole = jnp.ceil(jax.nn.relu(depth.bits))
  return int(jnp.sum(whole)) * weights_a_channel
