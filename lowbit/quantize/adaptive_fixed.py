"""AdaPT's bit controller: how many bits a layer's fixed point needs now.

PushDown finds the fewest bits that lose no information, measured by histograms;
PushUp adds some where gradients agree little. Kummer et al., Adaptive Precision
Training, 2021 (arXiv:2107.13490). Runs on the host between steps; bisection
evaluates the middle, where the released code evaluates the lower end.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from lowbit import formats

MAX = 32  # Bits.
STRATEGIES = ('min', 'mean', 'max')  # From few bits to many.


def divergence(w: np.ndarray, word: int, fraction: int, bins: int) -> float:
  """KL of the histogram of `w` from that of its fixed-point values, nats."""
  step, half = 2.0**-fraction, 2.0 ** (word - fraction - 1)
  rounded = np.clip(np.rint(w / step) * step, -half, half - step)
  span = (float(w.min()), float(w.max()))
  count = lambda a: np.histogram(a, bins, span)[0] / a.size
  p, q = count(w), count(np.clip(rounded, *span))
  used = p > 0
  floor = 1e-12  # Of an empty bin.
  return float(np.sum(p[used] * np.log(p[used] / np.maximum(q[used], floor))))


def push_down(
  w: np.ndarray, bins: int = 100, tolerance: float = 1e-3
) -> tuple[int, int]:
  """The smallest fraction length, then word length, without divergence.

  Args:
    w: Weights of a layer.
    bins: Resolution of the histograms.
    tolerance: A divergence that counts as none, nats. The paper's 0 would ask
      for bits enough to keep every weight on its side of a bin's edge.

  Returns:
    `(word, fraction)`.
  """
  w = np.asarray(w, np.float64)
  top = max(math.ceil(math.log2(max(np.abs(w).max(), 2.0**-60))) + 1, 1)
  loses = lambda word, fraction: divergence(w, word, fraction, bins) > tolerance
  fraction = _least(0, MAX - top, lambda f: not loses(MAX, f))
  word = _least(max(fraction, 2), MAX, lambda b: not loses(b, fraction))
  return word, fraction


def _least(low: int, high: int, good) -> int:
  """The least integer that is good, by bisection; `high` if none is."""
  while low < high:
    middle = (low + high) // 2
    low, high = (low, middle) if good(middle) else (middle + 1, high)
  return low


def diversity(gradients: Sequence[np.ndarray]) -> float:
  """(sum of norms) / (norm of the sum) of unit gradients; 1 if they agree."""
  unit = [g / max(np.linalg.norm(g), 1e-30) for g in gradients]
  total = np.linalg.norm(np.sum(unit, axis=0))
  return len(unit) / total if total > 0 else math.inf


def push_up(
  word: int, fraction: int, g: float, strategy: str = 'mean', buffer: int = 8
) -> tuple[int, int]:
  """More bits where gradients are diverse.

  With t = ln g - 1: s1 = max(ceil(1 / t^2), 1) and s2 = max(min(ceil(32 t^2),
  32) - fraction, 0), combined by the strategy; 1 for t <= 0.

  Args:
    word: Word length from `push_down`.
    fraction: Fraction length from it.
    g: `diversity` of the last gradients.
    strategy: 'min', 'mean' or 'max' of s1 and s2.
    buffer: Bits in front of the fraction that are kept free.

  Returns:
    `(word, fraction)`, at most 32 bits.
  """
  combine = {
    'min': min,
    'max': max,
    'mean': lambda a, b: math.ceil((a + b) / 2),
  }
  if strategy not in combine:
    raise ValueError(
      f'`strategy` must be one of {tuple(combine)}, got {strategy!r}.'
    )
  t = math.log(g) - 1 if math.isfinite(g) and g > 0 else 0.0
  more = 1
  if t > 0:
    first = max(math.ceil(1 / t**2), 1)
    second = max(min(math.ceil(32 * t**2), 32) - fraction, 0)
    more = combine[strategy](first, second)
  fraction = min(min(fraction + more, MAX), MAX - buffer)
  word = min(max(word, fraction) + 1, MAX)
  return max(min(fraction + buffer, MAX), word), fraction


def as_format(word: int, fraction: int) -> formats.FixedPoint:
  """The format, of at most 16 bits.

  Raises:
    ValueError: For more; keep such a layer in float32.
  """
  return formats.FixedPoint(word, fraction)


class Layer(NamedTuple):
  """What the controller knows of a layer."""

  word: int  # Bits.
  fraction: int  # Bits.
  lookback: int  # Steps until it is decided upon again.
  bins: int  # Of the histograms.


@dataclasses.dataclass(frozen=True)
class Controller:
  """How words, and what words are decided by, follow the training.

  The lookback tends to its upper bound over the gradients' diversity; where it
  ends up at a bound, histograms get finer (seldom asked) or coarser by one bin.
  These two rules are recalled, not read in the paper.

  Attributes:
    lookback: Bounds, steps.
    bins: Bounds.
    momentum: Share of the old lookback in the new one.
    tolerance: See `push_down`.
    buffer: See `push_up`.
  """

  lookback: tuple[int, int] = (25, 100)
  bins: tuple[int, int] = (50, 150)
  momentum: float = 0.33
  tolerance: float = 1e-2
  buffer: int = 4

  def start(self, word: int, fraction: int) -> Layer:
    """A layer before its first decision."""
    return Layer(word, fraction, self.lookback[0], sum(self.bins) // 2)

  def decide(
    self, layer: Layer, w: np.ndarray, g: float, strategy: str
  ) -> Layer:
    """The layer's next words: PushDown, then PushUp.

    Args:
      layer: As it was.
      w: Its float weights.
      g: `diversity` of its gradients since the last decision.
      strategy: See `push_up`.
    """
    fewest = push_down(w, layer.bins, self.tolerance)
    word, fraction = push_up(*fewest, g, strategy, self.buffer)
    low, high = self.lookback
    wanted = low if math.isinf(g) else math.ceil(high / max(g, 1.0))
    mixed = self.momentum * layer.lookback + (1 - self.momentum) * wanted
    lookback = min(max(math.ceil(mixed), low), high)
    finer = (lookback == high) - (lookback == low)
    bins = min(max(layer.bins + finer, self.bins[0]), self.bins[1])
    return Layer(word, fraction, lookback, bins)


def next_strategy(strategy: str, before: float, now: float) -> str:
  """'min' while the loss falls; one further of min, mean, max where not."""
  if strategy not in STRATEGIES:
    raise ValueError(
      f'`strategy` must be one of {STRATEGIES}, got {strategy!r}.'
    )
  if now < before:
    return STRATEGIES[0]
  return STRATEGIES[min(STRATEGIES.index(strategy) + 1, 2)]
