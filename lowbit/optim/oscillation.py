"""Weights that jump to and fro between two levels: seen, damped, frozen.

A `Grid` says where on its levels a weight lies. It is a frozen value with
`position(w)`: w in steps, so that round(position) names the level, and
`weight(position)`, its inverse.
"""

import dataclasses
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp
import optax

from lowbit import formats, quantize
from lowbit.optim import weights as weights_lib


class Grid(Protocol):
  """Where the levels of a weight are."""

  def position(self, w: jax.Array) -> jax.Array:
    """Positions in steps, float32, shape of w."""

  def weight(self, position: jax.Array, w: jax.Array) -> jax.Array:
    """Weights at these positions, with the scales of w."""


@dataclasses.dataclass(frozen=True)
class SpecGrid:
  """The grid of a symmetric integer spec, such as 'int4@channel'."""

  spec: quantize.Spec | str
  axis: int | tuple[int, ...] = -1

  def __post_init__(self):
    spec = quantize.Spec.parse(self.spec)
    object.__setattr__(self, 'spec', spec)
    if not isinstance(spec.format, formats.Integer) or spec.zero_point:
      raise ValueError(
        f'`spec` must be symmetric integers, got {spec}: oscillation is '
        'counted in equal steps. Use int2..int8, without z.'
      )

  def _scale(self, w):
    return quantize.wide_scales(quantize.quantize(w, self.spec, self.axis))[0]

  def position(self, w):
    """See `Grid`; clipped to the format's ends."""
    high = float(self.spec.format.values()[-1])
    low = float(self.spec.format.values()[0])
    return jnp.clip(w.astype(jnp.float32) / self._scale(w), low, high)

  def weight(self, position, w):
    """See `Grid`."""
    return position * self._scale(w)


@dataclasses.dataclass(frozen=True)
class StatsGrid:
  """OFQ's statistical grid: levels (k + 0.5) / n, n = 2^(bits-1), times s.

  s = 2 mean|w| over `axis`, without gradient; there is no level at zero. Liu et
  al., Oscillation-free Quantization, 2023 (arXiv:2302.02210).
  """

  bits: int
  axis: int | tuple[int, ...] = -1

  def _scale(self, w):
    axis = self.axis if w.ndim else None
    mean = jnp.mean(jnp.abs(w.astype(jnp.float32)), axis, keepdims=True)
    return jax.lax.stop_gradient(jnp.broadcast_to(2 * mean, w.shape))

  def position(self, w):
    """w n / s - 0.5, clipped to levels -n..n-1."""
    n = 2.0 ** (self.bits - 1)
    scale = self._scale(w)
    x = w.astype(jnp.float32) / jnp.where(scale == 0, 1.0, scale)
    return jnp.clip(x, -1.0, 1 - 1e-6) * n - 0.5

  def weight(self, position, w):
    """See `Grid`."""
    return (position + 0.5) / 2.0 ** (self.bits - 1) * self._scale(w)

  def quantized(self, w):
    """The levels of w; gradient 1 for every weight, clipped or not."""
    q = self.weight(jnp.rint(self.position(w)), w).astype(w.dtype)
    return w + jax.lax.stop_gradient(q - w)


class Oscillation(NamedTuple):
  """What is known of each weight; trees like the parameters."""

  level: optax.Updates  # float32, the level after the last step.
  direction: optax.Updates  # float32: -1, 1 of the last change, 0 before it.
  frequency: optax.Updates  # float32, moving average of oscillations a step.
  mean_level: optax.Updates  # float32, moving average of the level.
  frozen: optax.Updates  # bool.


def track_oscillation(
  grid: Grid, decay: float = 0.01, threshold: float = jnp.inf
) -> optax.GradientTransformation:
  """Last of a chain: counts oscillations, and freezes weights beyond a rate.

  A step oscillates where the level changes in the direction opposite to its
  last change; `frequency` averages that with weight `decay`. A weight whose
  frequency exceeds `threshold` is set to the nearest level of its average, and
  stays there. Nagel et al., Overcoming Oscillations in QAT, 2022
  (arXiv:2203.11086).

  Args:
    grid: Levels; static.
    decay: Weight of the newest step in the averages.
    threshold: Highest frequency allowed; infinity only counts.

  Returns:
    A transformation with an `Oscillation` state; needs `params`.
  """

  def init_fn(params):
    fill = lambda value: jax.tree.map(
      lambda p: jnp.full(p.shape, value, jnp.float32), params
    )
    level = jax.tree.map(lambda p: jnp.rint(grid.position(p)), params)
    frozen = jax.tree.map(lambda p: jnp.zeros(p.shape, bool), params)
    return Oscillation(level, fill(0), fill(0), level, frozen)

  def update_fn(updates, state, params=None):
    weights_lib.need(params, 'track_oscillation')
    leaf = lambda u, p, *s: _track(grid, decay, threshold, u, p, *s)
    leaves, treedef = jax.tree.flatten(updates)
    trees = [treedef.flatten_up_to(t) for t in (params, *state)]
    rows = [leaf(*row) for row in zip(leaves, *trees)]
    if not rows:
      return updates, state
    updates, *columns = [treedef.unflatten(c) for c in zip(*rows)]
    return updates, Oscillation(*columns)

  return optax.GradientTransformation(init_fn, update_fn)


def _track(grid, decay, limit, u, p, level, last, frequency, mean, frozen):
  u32 = jnp.where(frozen, 0.0, u.astype(jnp.float32))
  w = p.astype(jnp.float32) + u32
  new = jnp.where(frozen, level, jnp.rint(grid.position(w)))
  change = jnp.sign(new - level)
  oscillates = (change * last < 0).astype(jnp.float32)
  frequency = decay * oscillates + (1 - decay) * frequency
  mean = decay * new + (1 - decay) * mean
  last = jnp.where(change != 0, change, last)
  freezes = ~frozen & (frequency > limit)
  target = grid.weight(jnp.rint(mean), w)
  u32 = jnp.where(freezes, target - p.astype(jnp.float32), u32)
  new = jnp.where(freezes, jnp.rint(mean), new)
  return u32.astype(u.dtype), new, last, frequency, mean, frozen | freezes


def damp_oscillation(
  grid: Grid, strength: float
) -> optax.GradientTransformation:
  """First of a chain: adds 2 strength (w - level(w)) to each gradient.

  It is the gradient of strength |w - level(w)|^2, the level held fixed, and
  pulls weights from the boundaries to the levels (arXiv:2203.11086).
  """

  def update_fn(updates, state, params=None):
    weights_lib.need(params, 'damp_oscillation')

    def leaf(g, p):
      position = grid.position(p)
      away = grid.weight(position, p) - grid.weight(jnp.rint(position), p)
      return (g.astype(jnp.float32) + 2 * strength * away).astype(g.dtype)

    return jax.tree.map(leaf, updates, params), state

  return optax.GradientTransformation(optax.init_empty_state, update_fn)


def freeze_confident(
  grid: Grid, range_: float = 0.005
) -> optax.GradientTransformation:
  """Last of a chain: only weights near a rounding boundary move.

  Confidence-guided annealing: with f the fractional part of the position, a
  weight moves where |f - 0.5| <= `range_`, and keeps its value elsewhere,
  whatever momentum and decay ask for (arXiv:2302.02210).
  """

  def update_fn(updates, state, params=None):
    weights_lib.need(params, 'freeze_confident')

    def leaf(u, p):
      position = grid.position(p)
      near = jnp.abs(position - jnp.floor(position) - 0.5) <= range_
      return jnp.where(near, u, jnp.zeros_like(u))

    return jax.tree.map(leaf, updates, params), state

  return optax.GradientTransformation(optax.init_empty_state, update_fn)
