"""The dynamic tree in arithmetic: no look-up, for vector units without one."""

import dataclasses

import numpy as np

from lowbit.formats import base, float_grid, table

FEWEST = 6  # Bits; below, the look-up of `Table` is comparisons anyway.


@dataclasses.dataclass(frozen=True)
class Dynamic(table.Table):
  """A `Table` whose values are those of `catalogue.dynamic`.

  On TPUs, which look up badly, codes and values are computed: the values bit
  for bit, and the codes to nearest, but that what lies closer than 2^-14 of a
  step to the middle between two values may go to either.

  The magnitudes are numbered u = 1, 2, ... so that log2 u tells the decade
  (unsigned trees start at u = 2, and zero takes 1). As a function of the
  magnitude, u is a line in each decade, steeper in lower ones: it is the least
  of these lines.
  """

  @property
  def _signed(self) -> bool:
    return self.table[0] < 0

  @property
  def _counts(self) -> list[int]:
    """How many values a decade has, which is its first u as well."""
    first = 1 if self._signed else 2
    return [first << i for i in range(self.bits - 1)]

  @property
  def _last_edge(self) -> float:
    return (self.table[-1] + self.table[-2]) / 2

  def encode(self, x, rounding='nearest', noise=None):
    """See `base.Format.encode`, and the class for ties on TPUs."""
    look_up = super().encode
    if rounding != 'nearest':
      return look_up(x, rounding, noise)
    base.check_rounding(rounding, noise)
    return self._on_tpus(self.computed_codes, look_up, base.to_float32(x))

  def round(self, x, rounding='nearest', noise=None):
    """See `base.Format.round`, and the class for ties on TPUs."""
    look_up = super().round
    if rounding != 'nearest':
      return look_up(x, rounding, noise)
    base.check_rounding(rounding, noise)
    computed = lambda v: self.computed_values(self.computed_codes(v))
    y = self._on_tpus(computed, look_up, base.to_float32(x))
    return base.astype(y, x.dtype)

  def decode(self, codes):
    """See `base.Format.decode`."""
    return self._on_tpus(self.computed_values, super().decode, codes)

  def _on_tpus(self, computed, look_up, x):
    """computed(x) on TPUs, and look_up(x) elsewhere."""
    is_numpy = isinstance(x, np.ndarray | np.generic)
    if is_numpy or self.bits < FEWEST:
      return look_up(x)
    return base.lax.platform_dependent(x, tpu=computed, default=look_up)

  def computed_codes(self, v):
    """`encode` of float32 to nearest, in arithmetic."""
    i = np.int32
    v = base.where(v != v, np.float32(0), v)
    magnitude = base.where(v < 0, -v, v) if self._signed else v
    # No further than that: 1 has a line of its own.
    largest = np.float32((1 + self._last_edge) / 2)
    magnitude = base.clip(magnitude, np.float32(0), largest)
    # Beside 2^bits, whole and fraction of u are bit fields; so is the code, if
    # u is moved by the code of zero.
    top, zero = 2**self.bits, self.table.index(0.0) - (not self._signed)
    moved = self._least_line(magnitude, top + zero)
    u = moved - np.float32(top + zero)
    # Between two decades the middle is at a fifth of the upper one's step.
    fraction = u - float_grid.binade(u).view(np.float32)
    is_below = base.astype(fraction < np.float32(0.2), i)
    moved = self._with_one(moved, v, top + zero)
    code = (moved.view(i) >> i(23 - self.bits)) - is_below
    if self._signed:  # Mirrored at the code of zero.
      sign = v.view(i) >> i(31)  # All ones, or none.
      code = (code - sign) ^ sign
    return base.astype(code & i(top - 1), self.code_dtype)

  def _lines(self) -> list[tuple[float, float]]:
    """(slope, u at magnitude 0) of each decade."""
    lines = []
    for i, n in enumerate(self._counts):
      start = 10.0 ** (i - self.bits + 1)
      slope = n / (9 * start)
      lines.append((slope, n - slope * start))
    # The lowest has its first step from the middle between 0 and its value.
    n, start = self._counts[0], 10.0 ** (1 - self.bits)
    first = (start + 4.5 * start / n) / 2
    slope = 0.8 / (start + 9 * start / n - first)
    return [(slope, n + 0.2 - slope * first), *lines[1:]]

  def _least_line(self, magnitude, offset):
    """u + offset; a selection is one vector instruction, a minimum is more."""
    least = None
    for slope, start in self._lines():
      y = np.float32(slope) * magnitude + np.float32(start + offset)
      least = y if least is None else base.where(y < least, y, least)
    return least

  def _with_one(self, moved, v, offset):
    """u + offset, or that of +1 from the middle below it on."""
    edge = self._last_edge
    slope = 0.5 / (1 - edge)
    start = 2 * self._counts[-1] - slope * edge
    v = base.clip(v, np.float32(-1), np.float32(1))
    raised = np.float32(slope) * v + np.float32(start + offset)
    return base.where(moved < raised, raised, moved)

  def computed_values(self, codes):
    """`decode` in arithmetic.

    A value is 10^decade w, where w has few bits. The power is the sum of 12
    bits and of the rest, so that only the last sum rounds.
    """
    f, i = np.float32, np.int32
    zero = self.table.index(0.0)
    code = base.astype(codes, i) - i(zero)
    u = base.astype(abs(code) + i(not self._signed), f)
    first = float_grid.binade(u)
    inverse = float_grid.reciprocal(first)
    w = f(1) + f(9) * ((u - first.view(f)) * inverse + f(0.5) * inverse)
    high = low = f(0)
    for k, n in enumerate(self._counts):
      power = 10.0 ** (k - self.bits + 1)
      coarse = float((f(power).view(i) & i(-(2**12))).view(f))
      high = base.where(u >= f(n), f(coarse), high)
      low = base.where(u >= f(n), f(power - coarse), low)
    y = base.where(code == i(0), f(0), high * w + low * w)
    y = base.where(code == i(len(self.table) - 1 - zero), f(1), y)
    return base.where(code < i(0), -y, y)
