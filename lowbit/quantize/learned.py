"""Quantizers with parameters that are trained beside the weights.

A quantizer is a frozen value with two methods: `init(x, axis)` gives its
parameters, a small dict of arrays, and `quantizer(x, params, axis)` the
quantized x, differentiable in both. The parameters live in a pytree of their
own, keyed by the path of the weight, so that any optax optimizer trains them.

All are written with stop_gradient alone: what autodiff then finds is the
gradient of the paper, and `tests/quantize/learned_test.py` holds each to its
formula.
"""

import dataclasses
import math
from typing import Protocol

import jax
import jax.numpy as jnp

from lowbit import formats
from lowbit.quantize import blocking

Params = dict[str, jax.Array]
Axis = int | tuple[int, ...]


class Learned(Protocol):
  """What a rule takes in place of a `Spec`.

  One with an attribute `stochastic` that is true is called with a fresh PRNG
  key as fourth argument.
  """

  def init(self, x: jax.Array, axis: Axis) -> Params:
    """Parameters for tensors like `x`, contracted along `axis`."""

  def __call__(self, x: jax.Array, params: Params, axis: Axis) -> jax.Array:
    """The quantized `x`, in its dtype."""


def round_ste(x: jax.Array) -> jax.Array:
  """round(x), gradient 1: Bengio et al., 2013 (arXiv:1308.3432)."""
  return x + jax.lax.stop_gradient(jnp.rint(x) - x)


def scale_gradient(x: jax.Array, factor) -> jax.Array:
  """`x`, whose gradient is multiplied by `factor`."""
  scaled = x * factor
  return scaled + jax.lax.stop_gradient(x - scaled)


def clip_inside(x: jax.Array, low, high) -> jax.Array:
  """clip(x, low, high); gradient 1 inside and on the ends, 0 outside."""
  low, high = jnp.asarray(low, x.dtype), jnp.asarray(high, x.dtype)
  return jnp.where(x < low, low, jnp.where(x > high, high, x))


def kept_axes(x: jax.Array, axis: Axis, block: str) -> tuple[int, ...]:
  """The axes that one parameter spans."""
  if block == 'tensor':
    return tuple(range(x.ndim))
  return tuple(blocking.normalize_axis(axis, x.ndim))


def _check(block: str, bits: int, least: int) -> None:
  if isinstance(bits, bool) or not isinstance(bits, int):
    raise TypeError(
      f'`bits` of a learned quantizer must be an int, got {bits!r}: its levels '
      'lie evenly, and it serves no other format. For a spec or a table such '
      "as nf4 write Rule('.*', 'nf4@g64'), whose gradient `estimator` gives."
    )
  if block not in ('tensor', 'channel', 'token'):
    raise ValueError(
      f"`block` of a learned quantizer is 'tensor' or 'channel', got {block!r}."
      ' Groups have scales of their own: use a spec, such as int4@g64.'
    )
  if not least <= bits <= 16:
    raise ValueError(
      f'`bits` must lie in {least}..16, got {bits}. Fewer leave no two levels, '
      'more are float.'
    )


LEAST_STEP = 1e-18


@dataclasses.dataclass(frozen=True)
class Lsq:
  """Learned step size: y = s round(clip(x / s, low, high)).

  dy/dx = 1 inside [low, high], 0 outside; dy/ds = round(v) - v inside, v = x/s,
  and low or high outside, times 1 / sqrt(n high) with n the number of elements
  that share s. s starts at 2 mean|x| / sqrt(high). Esser et al., Learned Step
  Size Quantization, 2019 (arXiv:1902.08153).

  Attributes:
    bits: Width; codes are -2^(b-1) .. 2^(b-1) - 1, or 0 .. 2^b - 1 unsigned.
    signed: False for activations that are not negative.
    block: 'tensor', or 'channel' for one step along the contraction axes.
  """

  bits: int
  signed: bool = True
  block: str = 'tensor'

  def __post_init__(self):
    _check(self.block, self.bits, 2 if self.signed else 1)

  @property
  def format(self) -> formats.Integer:
    """The integers that are stored."""
    return formats.Integer(self.bits, self.signed, full_range=self.signed)

  def init(self, x, axis=-1) -> Params:
    """One step a block: float32, `x` with the block's axes of length 1."""
    axes = kept_axes(x, axis, self.block)
    mean = jnp.mean(jnp.abs(x.astype(jnp.float32)), axis=axes, keepdims=True)
    step = 2 * mean / math.sqrt(self.format.high)
    return {'step': jnp.where(step > 0, step, jnp.float32(1))}

  def __call__(self, x, params, axis=-1):
    """The quantized `x`."""
    low, high = self.format.low, self.format.high
    step = params['step']
    share = x.size // step.size
    step = scale_gradient(step, 1 / math.sqrt(max(share * high, 1)))
    # A step that training drives below zero would flip every sign; the square
    # of the least one, in the gradient, is no zero.
    step = jnp.maximum(step, jnp.float32(LEAST_STEP))
    v = clip_inside(x.astype(jnp.float32) / step, low, high)
    return (round_ste(v) * step).astype(x.dtype)


@dataclasses.dataclass(frozen=True)
class Pact:
  """Learned upper clip of activations that are not negative.

  y = round(clip(x, 0, a) n / a) a / n, n = 2^bits - 1; dy/dx = 1 on [0, a),
  dy/da = 1 where x >= a and 0 elsewhere (the rounding is not seen by a). Choi
  et al., PACT, 2018 (arXiv:1805.06085).
  """

  bits: int
  start: float = 6.0  # The first clip, at most the largest |x| that is seen.

  def __post_init__(self):
    _check('tensor', self.bits, 1)

  def init(self, x, axis=-1) -> Params:
    """{'clip': float32 []}."""
    del axis
    top = jnp.max(jnp.abs(x.astype(jnp.float32)))
    return {'clip': jnp.minimum(jnp.float32(self.start), top)}

  def __call__(self, x, params, axis=-1):
    """The quantized `x`."""
    del axis
    clip, levels = params['clip'], 2**self.bits - 1
    v = x.astype(jnp.float32)
    inside = jnp.where(v < 0, 0.0, jnp.where(v >= clip, clip, v))
    step = jax.lax.stop_gradient(clip) / levels
    rounded = jnp.rint(jax.lax.stop_gradient(inside) / step) * step
    y = inside + jax.lax.stop_gradient(rounded - inside)
    return y.astype(x.dtype)


@dataclasses.dataclass(frozen=True)
class Pams:
  """Learned symmetric clip: y = round(clip(x, -a, a) n / a) a / n.

  n = 2^(bits-1) - 1. dy/dx = 1 in (-a, a); dy/da = sign(x) outside, and (y -
  x) / a inside, through the scale. Li et al., PAMS, 2020 (arXiv:2011.04212).
  """

  bits: int

  def __post_init__(self):
    _check('tensor', self.bits, 2)

  def init(self, x, axis=-1) -> Params:
    """{'clip': float32 []}, the largest magnitude seen."""
    del axis
    top = jnp.max(jnp.abs(x.astype(jnp.float32)))
    return {'clip': jnp.where(top > 0, top, jnp.float32(1))}

  def __call__(self, x, params, axis=-1):
    """The quantized `x`."""
    del axis
    clip, levels = params['clip'], 2 ** (self.bits - 1) - 1
    v = clip_inside(x.astype(jnp.float32) / clip, -1.0, 1.0)
    return (round_ste(v * levels) / levels * clip).astype(x.dtype)


@dataclasses.dataclass(frozen=True)
class Elastic:
  """Stretched elastic quantizer: levels lie even around 0, none on the clip.

  y = a (round(L c - shift) + shift) / L with c = clip(x / a, -.99, .99); L =
  2^(bits-1) and shift 1/2, or L = 3/2 and shift 0 for ternary: 2 bits give
  +-a/4 and +-3a/4, ternary gives 0 and +-2a/3. Gradients are those of LSQ, with
  clips at |x/a| = .99. Liu et al., ParetoQ, 2025 (arXiv:2502.02631).

  Attributes:
    bits: Width; 1.58 for ternary.
    block: 'tensor' or 'channel'.
  """

  bits: float
  block: str = 'channel'

  def __post_init__(self):
    if self.bits not in (1, 1.58, 2, 3, 4):
      raise ValueError(
        f'`bits` of Elastic must be 1, 1.58, 2, 3 or 4, got {self.bits}. For '
        'more use Lsq.'
      )
    _check(self.block, 2, 2)

  @property
  def _levels(self) -> tuple[float, float]:
    return (1.5, 0.0) if self.bits == 1.58 else (2.0 ** (self.bits - 1), 0.5)

  def init(self, x, axis=-1) -> Params:
    """One clip a block: the largest magnitude; mean |x| at 1 bit."""
    axes = kept_axes(x, axis, self.block)
    magnitude = jnp.abs(x.astype(jnp.float32))
    reduce = jnp.mean if self.bits == 1 else jnp.max
    clip = reduce(magnitude, axis=axes, keepdims=True)
    return {'clip': jnp.where(clip > 0, clip, jnp.float32(1))}

  def __call__(self, x, params, axis=-1):
    """The quantized `x`."""
    levels, shift = self._levels
    clip = params['clip']
    top = (levels - shift) / levels
    factor = 1 / math.sqrt(max(x.size // clip.size * top, 1))
    clip = jnp.maximum(
      scale_gradient(clip, factor), jnp.finfo(jnp.float32).tiny
    )
    c = x.astype(jnp.float32) / clip
    inner = clip_inside(c, -0.99, 0.99)
    y = (round_ste(inner * levels - shift) + shift) / levels * clip
    # Outside, the gradient of the clip is that of `top`, as released.
    edge = jnp.sign(c) * jnp.float32(top) * clip
    edge = edge + jax.lax.stop_gradient(y - edge)
    return jnp.where(jnp.abs(c) > 0.99, edge, y).astype(x.dtype)


@dataclasses.dataclass(frozen=True)
class Dorefa:
  """Weights through tanh: y = 2 q(t / (2 max|t|) + 1/2) - 1, t = tanh(x).

  q rounds to 2^bits - 1 steps in [0, 1], straight-through. No parameters. Zhou
  et al., DoReFa-Net, 2016 (arXiv:1606.06160).
  """

  bits: int

  def __post_init__(self):
    _check('tensor', self.bits, 1)

  def init(self, x, axis=-1) -> Params:
    """No parameters: {}."""
    del x, axis
    return {}

  def __call__(self, x, params, axis=-1):
    """The quantized `x`, in [-1, 1]."""
    del params, axis
    levels = 2**self.bits - 1
    t = jnp.tanh(x.astype(jnp.float32))
    unit = t / (2 * jax.lax.stop_gradient(jnp.max(jnp.abs(t)))) + 0.5
    return (2 * round_ste(unit * levels) / levels - 1).astype(x.dtype)
