"""A learned step with a learned offset (LSQ+), and its search for a start."""

import dataclasses
import math

import jax
import jax.numpy as jnp

from lowbit.quantize import learned

_SHRINKS = 80  # Candidates 1.00, 0.99, ... of the range.
_POWER = 2.4  # Of the error that the start minimizes.
# A step that training drives below zero stays here: 1 / s^2 is still finite.
_LEAST = learned.LEAST_STEP


@dataclasses.dataclass(frozen=True)
class LsqPlus:
  """y = s round(clip((x - offset) / s, low, high)) + offset.

  Codes are 0 .. 2^b - 1 with an offset, -2^(b-1) .. 2^(b-1) - 1 without.
  Gradients: LSQ's in x and s; dy/doffset is 1 where x saturates, 0 inside; both
  parameters' are times 1 / sqrt(n high), n the elements that share them.
  Bhalgat et al., LSQ+, 2020 (arXiv:2004.09576). The start is the shrunken range
  of least |x - y|^2.4, as EQ-Net takes it (arXiv:2308.07650).

  Attributes:
    bits: Width, 2 .. 16.
    offset: False fixes the offset at 0.
    block: 'tensor' or 'channel'.
  """

  bits: int
  offset: bool = True
  block: str = 'tensor'

  def __post_init__(self):
    learned.Lsq(self.bits, block=self.block)  # Checks both.

  @property
  def range(self) -> tuple[int, int]:
    """The lowest and the highest code."""
    if self.offset:
      return 0, 2**self.bits - 1
    return -(2 ** (self.bits - 1)), 2 ** (self.bits - 1) - 1

  def init(self, x, axis=-1) -> learned.Params:
    """{'step', 'offset'}: float32, `x` with the block's axes of length 1."""
    x = x.astype(jnp.float32)
    axes = learned.kept_axes(x, axis, self.block)
    reduce = lambda f, v: f(v, axis=axes, keepdims=True)
    low, high = reduce(jnp.min, x), reduce(jnp.max, x)
    top = jnp.maximum(jnp.abs(low), jnp.abs(high))
    width = high - low if self.offset else top
    width = jnp.where(width > 0, width, 1.0) / self.range[1]
    low = low if self.offset else jnp.zeros_like(low)

    def error(shrink):
      y = self._quantized(x, width * shrink, low * shrink)
      return reduce(jnp.sum, jnp.abs(x - y) ** _POWER)

    shrinks = 1 - jnp.arange(_SHRINKS, dtype=jnp.float32) / 100
    best = shrinks[jnp.argmin(jax.lax.map(error, shrinks), axis=0)]
    return {'step': width * best, 'offset': low * best}

  def __call__(self, x, params, axis=-1):
    """The quantized `x`."""
    del axis
    step, offset = params['step'], params['offset']
    share = max(x.size // step.size * self.range[1], 1)
    factor = 1 / math.sqrt(share) if self.offset else 0.0
    offset = learned.scale_gradient(offset, factor)
    step = learned.scale_gradient(step, 1 / math.sqrt(share))
    step = jnp.maximum(step, _LEAST)
    y = self._quantized(x.astype(jnp.float32), step, offset)
    return y.astype(x.dtype)

  def _quantized(self, x, step, offset):
    v = learned.clip_inside((x - offset) / step, *self.range)
    return learned.round_ste(v) * step + offset
