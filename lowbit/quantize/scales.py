"""Scale rules: how large is the step of a block?

A rule is a frozen callable `rule(x, fmt, axes) -> scale`: `x` is a blocked
float32 array, `axes` are the axes inside one block, and `scale` is positive
float32 with those axes kept at length one. Affine quantization asks the rule
for a range instead: `rule.range(x, axes) -> (low, high)`.

What every rule promises: a block of zeros has scale 1, a block with NaN or Inf
has scale NaN (so the whole block decodes to NaN; all but `Unit`), and no scale
is below the smallest normal float32, 2^-126, because XLA flushes subnormals.
"""

import dataclasses
import re
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np

from lowbit import formats
from lowbit.formats import base
from lowbit.quantize import histogram
from lowbit.quantize.maxima import Axes, absmax, poison

TINY = float(np.finfo(np.float32).tiny)
SQRT2_FRACTION = 0x3504F3  # Fraction field of float32(sqrt(2)).


class Rule(Protocol):
  """What `Spec.scale` must be."""

  name: str

  def __call__(
    self, x: jax.Array, fmt: formats.Format, axes: Axes
  ) -> jax.Array:
    """Returns one scale a block."""


def guard(scale: jax.Array, amax: jax.Array) -> jax.Array:
  """Makes a scale usable: 1 for zero blocks, NaN for NaN or Inf, >= 2^-126."""
  one, nan = jnp.float32(1), jnp.float32(jnp.nan)
  scale = base.where(amax == 0, one, jnp.maximum(scale, TINY))
  return base.where(jnp.isfinite(amax), scale, nan)


def divide(x: jax.Array, by) -> jax.Array:
  """x / by, correctly rounded, and 0 where x is 0.

  XLA replaces a division by a constant or by a broadcast with a product by the
  reciprocal, which is off by an ulp, and is 0 for `by` above 2^126. A divisor
  that differs from element to element, for all it knows, it leaves alone.
  """
  one = jnp.ones((), jnp.float32)
  quotient = x / base.where(x == 0, one, jnp.asarray(by, jnp.float32))
  # Clamping changes nothing, but has one full operand: on CPUs XLA fuses it
  # into all that read it, and would else write the quotient to memory.
  return jax.lax.clamp(np.float32(-np.inf), quotient, np.float32(np.inf))


def _range(x: jax.Array, axes: Axes) -> tuple[jax.Array, jax.Array]:
  low = jnp.min(x, axis=axes, keepdims=True, initial=0.0)
  high = jnp.max(x, axis=axes, keepdims=True, initial=0.0)
  return low, high + poison(x, axes)


@dataclasses.dataclass(frozen=True)
class Absmax:
  """The largest magnitude meets `fmt.scale_target`: nothing saturates."""

  name = 'absmax'

  def __call__(self, x, fmt, axes):
    """Returns absmax / scale_target for each block."""
    amax = absmax(x, axes)
    return guard(divide(amax, fmt.scale_target), amax)

  def range(self, x, axes):
    """Returns (min(x, 0), max(x, 0)) for each block."""
    return _range(x, axes)


@dataclasses.dataclass(frozen=True)
class Unit:
  """Scale 1: a direct cast, NaN and Inf included.

  They come out as the format has them: without a NaN as 0, saturated.
  """

  name = 'unit'

  def __call__(self, x, fmt, axes):
    """Returns ones, one a block."""
    del fmt
    shape = [1 if i in axes else n for i, n in enumerate(x.shape)]
    return jnp.ones(shape, jnp.float32)


@dataclasses.dataclass(frozen=True)
class Percentile:
  """The p-th percentile of |x| meets `fmt.max`; what lies above saturates.

  The zeros that pad a ragged tail count as data, as they do in `Density`.

  Wu et al., Integer Quantization for Deep Learning Inference, 2020
  (arXiv:2004.09602) use p in {99.9, 99.99, 99.999, 99.9999}.
  """

  percent: float

  def __post_init__(self):
    if not 0 < self.percent <= 100:
      raise ValueError(
        f'`percent` must lie in (0, 100], got {self.percent}. Use for example '
        'p99.9.'
      )

  @property
  def name(self) -> str:
    """The name in a spec: p99.9."""
    return f'p{_plain(self.percent)}'

  def __call__(self, x, fmt, axes):
    """Returns percentile(|x|) / scale_target for each block."""
    high = jnp.percentile(jnp.abs(x), self.percent, axis=axes, keepdims=True)
    # A block that is mostly zeros has percentile 0: fall back to its absmax.
    amax = absmax(x, axes)
    high = jnp.where(high > 0, high, amax)
    return guard(divide(high, fmt.scale_target), amax)

  def range(self, x, axes):
    """Returns the two-sided percentile range, widened to hold 0."""
    low = jnp.percentile(x, 100 - self.percent, axis=axes, keepdims=True)
    high = jnp.percentile(x, self.percent, axis=axes, keepdims=True)
    return jnp.minimum(low, 0.0), jnp.maximum(high, 0.0)


@dataclasses.dataclass(frozen=True)
class Mse:
  """The clip ratio in [smallest, 1] whose rounding error is least.

  Args:
    steps: How many ratios are tried; ratio 1 (plain absmax) is among them.
    smallest: The smallest ratio tried.
    norm: Exponent of the error, 2 for MSE, 2.4 in the GPTQ code.
  """

  steps: int = 40
  smallest: float = 0.2
  norm: float = 2.0

  def __post_init__(self):
    if self.steps < 1 or not 0 < self.smallest <= 1 or self.norm <= 0:
      raise ValueError(
        f'`steps` must be positive, `smallest` in (0, 1], `norm` positive; got '
        f'{self}.'
      )

  @property
  def name(self) -> str:
    """The name in a spec: mse, or mse100_0.5_2.4 (steps, smallest, norm)."""
    if self == Mse():
      return 'mse'
    return f'mse{self.steps}_{_plain(self.smallest)}_{_plain(self.norm)}'

  def ratios(self) -> jax.Array:
    """The ratios that are tried, from 1 downwards."""
    return jnp.linspace(1.0, self.smallest, self.steps, dtype=jnp.float32)

  def search(self, x, axes, dequantized):
    """Returns for each block the ratio r with the least |x - dequantized(r)|.

    Args:
      x: Blocked float32 array.
      axes: Axes inside one block.
      dequantized: Maps a ratio [] to an array like `x`.
    """

    def error(ratio):
      distance = jnp.abs(x - dequantized(ratio)) ** self.norm
      return jnp.sum(distance, axis=axes, keepdims=True)

    def step(best, ratio):
      least, kept = best
      current = error(ratio)
      better = current < least
      return (
        jnp.where(better, current, least),
        jnp.where(better, ratio, kept),
      ), None

    ratios = self.ratios()
    start = error(ratios[0])
    (_, kept), _ = jax.lax.scan(step, (start, jnp.ones_like(start)), ratios[1:])
    return kept

  def __call__(self, x, fmt, axes):
    """Returns ratio * absmax / scale_target for each block."""
    full = Absmax()(x, fmt, axes)

    def dequantized(ratio):
      return fmt.round(divide(x, full * ratio)) * (full * ratio)

    return jnp.maximum(full * self.search(x, axes, dequantized), TINY)

  def range(self, x, axes):
    """Ranges are searched by `affine`, which knows the levels."""
    return _range(x, axes)


@dataclasses.dataclass(frozen=True)
class Entropy:
  """The clip of least KL divergence, from a histogram of each block.

  For signed integers of b bits, whose 2^(b-1) magnitudes are the levels; see
  `histogram.entropy_range`. Meant for whole tensors: each block tries about
  2000 clips. Batches go through `histogram.observe` instead.
  """

  name = 'entropy'

  def __call__(self, x, fmt, axes):
    """Returns clip / max for each block."""
    amax = absmax(x, axes)
    kept = tuple(i for i in range(x.ndim) if i not in axes)
    rows = jnp.transpose(x, kept + axes).reshape(amax.size, -1)

    def clip(row):
      bins = histogram.observe(histogram.empty(), row)
      return histogram.entropy_range(bins, fmt.high + 1)

    clips = jax.lax.map(clip, rows).reshape(amax.shape)
    return guard(divide(clips, fmt.scale_target), amax)


@dataclasses.dataclass(frozen=True)
class Density:
  """A range around the densest part: for formats with a real zero point.

  The centre m is the middle of the central `percent` of the values, and the
  range is m -+ max(max - m, m - min). Luo et al., DAQ, 2024 (arXiv:2410.12187),
  whose released code shrinks it by 0.9 for its search to start from.
  """

  percent: float = 95.0

  def __post_init__(self):
    if not 0 <= self.percent <= 100:
      raise ValueError(f'`percent` must lie in [0, 100], got {self.percent}.')

  @property
  def name(self) -> str:
    """The name in a spec: density, or density90."""
    return 'density' if self == Density() else f'density{_plain(self.percent)}'

  def __call__(self, x, fmt, axes):
    """Raises: a range needs a zero point."""
    raise ValueError("The rule density needs a zero point: write 'z'.")

  def range(self, x, axes):
    """Returns (m - k, m + k) for each block."""
    tail = (100 - self.percent) / 2
    quantile = lambda p: jnp.percentile(x, p, axis=axes, keepdims=True)
    centre = (quantile(tail) + quantile(100 - tail)) / 2
    low = jnp.min(x, axis=axes, keepdims=True)
    high = jnp.max(x, axis=axes, keepdims=True)
    half = jnp.maximum(high - centre, centre - low)
    return centre - half, centre + half


@dataclasses.dataclass(frozen=True)
class PowerOfTwo:
  """A power-of-two scale, 2^s, from the exponent of the block's absmax.

  With e = floor(log2 absmax), and emax = floor(log2 fmt.max):
    floor: s = e - emax, the OCP MX rule; up to 2x saturation.
    ceil:  s = ceil(log2 absmax) - emax; never saturates.
    rceil: the smallest s with absmax <= fmt.max * 2^s.
    even:  floor, after absmax is rounded to the format's mantissa bits.
    rne:   s = round(log2 absmax) - emax.
    bfp:   s = ceil(log2 absmax) - emax - 1: block floating point; the codes of
           b-bit integers are then a sign and a fraction of b - 1 bits.
    mse:   floor or floor + 1, whichever has the smaller squared error.
  All are computed on the exponent field, exactly. Source: OCP Microscaling
  Formats v1.0, 2023, and Rouhani et al., arXiv:2310.10537.
  """

  kind: str = 'floor'

  def __post_init__(self):
    if self.kind not in KINDS:
      raise ValueError(f'`kind` must be one of {KINDS}, got {self.kind!r}.')

  @property
  def name(self) -> str:
    """The name in a spec: floor, ceil, rceil, even, rne, bfp or pow2mse."""
    return 'pow2mse' if self.kind == 'mse' else self.kind

  def __call__(self, x, fmt, axes):
    """Returns 2^s for each block."""
    amax = absmax(x, axes)
    if self.kind == 'mse':
      return guard(self._search(x, amax, fmt, axes), amax)
    return guard(exp2(_exponent(amax, fmt, self.kind)), amax)

  def _search(self, x, amax, fmt, axes):
    low = _exponent(amax, fmt, 'floor')

    def error(scale):
      return jnp.sum(
        (x - fmt.round(divide(x, scale)) * scale) ** 2,
        axis=axes,
        keepdims=True,
      )

    small, large = exp2(low), exp2(low + 1)
    return jnp.where(error(small) <= error(large), small, large)


KINDS = ('floor', 'ceil', 'rceil', 'even', 'rne', 'bfp', 'mse')


def exp2(exponent: jax.Array) -> jax.Array:
  """2^exponent as float32 from its exponent field; clamped to [-126, 127]."""
  i = np.int32
  field = base.clip(exponent.astype(i), i(-126), i(127)) + i(127)
  return (field << i(23)).view(jnp.float32)


def _exponent(amax: jax.Array, fmt: formats.Format, kind: str) -> jax.Array:
  """The exponent s of a power-of-two scale, int32; see `PowerOfTwo`."""
  top = jnp.asarray(fmt.max, jnp.float32).view(jnp.int32)  # Maybe traced.
  bits = amax.view(jnp.int32)
  if kind == 'even':  # Round to nearest: a carry walks into the exponent.
    cut = 23 - (fmt.grid.mantissa_bits if fmt.grid else 0)
    bits = bits + (1 << (cut - 1))
  above = bits & 0x7FFFFF
  s = (bits >> 23) - (top >> 23)
  if kind == 'ceil':
    s = s + (above != 0).astype(jnp.int32)
  elif kind == 'bfp':
    s = s + (above != 0).astype(jnp.int32) - np.int32(1)
  elif kind == 'rceil':
    s = s + (above > (top & 0x7FFFFF)).astype(jnp.int32)
  elif kind == 'rne':
    s = s + (above > SQRT2_FRACTION).astype(jnp.int32)
  return s


def affine(x: jax.Array, levels: int, rule: Rule, axes: Axes):
  """Scale and zero point of an unsigned integer grid 0..levels.

  scale = (high - low) / levels, zero = round(-low / scale); low <= 0 <= high,
  so that 0 is exact.

  Returns:
    `(scale, zero)`, float32; `zero` is an integer in [0, levels].
  """
  low, high = rule.range(x, axes)
  ratio = jnp.float32(1)
  if isinstance(rule, Mse):

    def dequantized(r):
      scale, zero = _affine(low * r, high * r, levels)
      code = jnp.clip(jnp.rint(divide(x, scale)) + zero, 0, levels)
      return (code - zero) * scale

    ratio = rule.search(x, axes, dequantized)
  return _affine(low * ratio, high * ratio, levels)


def _affine(low, high, levels):
  scale = width(low, high, levels)
  zero = jnp.clip(jnp.rint(divide(-low, scale)), 0, levels)
  return scale, zero


def width(low: jax.Array, high: jax.Array, parts: float) -> jax.Array:
  """(high - low) / parts as a scale, also where the difference overflows."""
  range_ = high - low
  step = jnp.where(
    jnp.isinf(range_),
    divide(high, parts) - divide(low, parts),
    divide(range_, parts),
  )
  largest = jnp.maximum(high, -low)
  return guard(step, jnp.where(high == low, 0.0, largest))


_NUMBER = r'(\d+(?:\.\d+)?)'


def _plain(number: float) -> str:
  """The shortest decimals that give this float, without an exponent."""
  return np.format_float_positional(number, trim='-')


def parse(name: str) -> Rule:
  """The rule with this name: absmax, unit, mse, p99.9, entropy, floor, ..."""
  fixed = {'absmax': Absmax(), 'unit': Unit(), 'mse': Mse()}
  fixed |= {'density': Density(), 'entropy': Entropy()}
  fixed |= {PowerOfTwo(kind).name: PowerOfTwo(kind) for kind in KINDS}
  if name in fixed:
    return fixed[name]
  if match := re.fullmatch(f'p{_NUMBER}', name):
    return Percentile(float(match[1]))
  if match := re.fullmatch(f'density{_NUMBER}', name):
    return Density(float(match[1]))
  if match := re.fullmatch(rf'mse(\d+)_{_NUMBER}_{_NUMBER}', name):
    return Mse(int(match[1]), float(match[2]), float(match[3]))
  raise ValueError(
    f'Unknown scale rule {name!r}. Use one of {", ".join(fixed)}, or a '
    'percentile such as p99.9.'
  )
