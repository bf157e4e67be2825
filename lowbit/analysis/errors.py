"""What quantization does to tensors: the error of a spec, in numbers."""

import dataclasses
import math
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from lowbit import quantize

BINS = 101  # Odd: one lies around zero.


@dataclasses.dataclass(frozen=True)
class Errors:
  """The error of one spec, over all elements of some tensors.

  `profile` has the RMS error of the elements in each of `BINS` equal bins over
  [-limit, limit], NaN where there are none.
  """

  spec: str
  sqnr_db: float  # 10 log10(sum x^2 / sum (x - q)^2); inf if exact.
  max_error: float  # Largest |x - q|.
  zeros: float  # Share of the nonzero elements that become 0.
  bits_per_weight: float  # At rest, with scales and side data.
  worst: str  # Name of the tensor with the least SQNR ...
  worst_db: float  # ... and that.
  profile: tuple[float, ...] = dataclasses.field(repr=False)


@dataclasses.dataclass(frozen=True)
class _Sums:
  """What one tensor adds to `Errors`."""

  signal: float
  noise: float
  max_error: float
  nonzero: int
  zeroed: int
  bits: int
  noise_by_bin: np.ndarray  # float64 [BINS].

  @property
  def sqnr_db(self) -> float:
    return sqnr_db(self.signal, self.noise)


def measure(
  tensors: Mapping[str, jax.Array],
  spec: quantize.Spec | str,
  axes: Mapping[str, int] | None = None,
  limit: float | None = None,
) -> Errors:
  """Quantizes each tensor, and sums up the errors.

  Stochastic rounding takes the keys of seed 0.

  Args:
    tensors: Name -> float array, at least one element in all.
    spec: How, or its name.
    axes: Name -> contraction axis; -1 by default.
    limit: Largest magnitude of the profile; by default that of the tensors.

  Raises:
    ValueError: If there are no elements, or the spec does not fit a tensor.
  """
  spec = quantize.Spec.parse(spec)
  size = sum(math.prod(np.shape(x)) for x in tensors.values())
  if not size:
    raise ValueError('`tensors` hold no elements. Give at least one weight.')
  limit = magnitude(tensors) if limit is None else limit
  axis = lambda name: -1 if axes is None else axes[name]
  keys = jax.random.split(jax.random.key(0), len(tensors))
  if spec.rounding != 'stochastic':
    keys = [None] * len(tensors)
  parts = {
    name: _sums(x, spec, axis(name), key, limit)
    for (name, x), key in zip(tensors.items(), keys)
    if np.size(x)
  }
  return _errors(spec, parts, size, histogram(tensors, limit))


def _errors(spec, parts: dict[str, _Sums], size: int, counts) -> Errors:
  total = lambda name: sum(getattr(p, name) for p in parts.values())
  # NaN, from a scale that overflows its format, counts as the worst.
  worst = min(parts, key=lambda n: np.nan_to_num(parts[n].sqnr_db, nan=-np.inf))
  mean = np.where(counts, total('noise_by_bin') / np.maximum(counts, 1), np.nan)
  return Errors(
    spec=str(spec),
    sqnr_db=sqnr_db(total('signal'), total('noise')),
    max_error=float(np.max([p.max_error for p in parts.values()])),
    zeros=total('zeroed') / max(total('nonzero'), 1),
    bits_per_weight=total('bits') / size,
    worst=worst,
    worst_db=parts[worst].sqnr_db,
    profile=tuple(np.sqrt(mean).tolist()),
  )


def _sums(x, spec, axis, key, limit) -> _Sums:
  q = quantize.quantize(jnp.asarray(x), spec, axis, key)
  x = np.asarray(x, np.float64)
  y = np.asarray(quantize.dequantize(q), np.float64)
  square = (x - y) ** 2
  return _Sums(
    signal=float(np.sum(x**2)),
    noise=float(np.sum(square)),
    max_error=float(np.sqrt(np.max(square))),
    nonzero=int(np.count_nonzero(x)),
    zeroed=int(np.count_nonzero((x != 0) & (y == 0))),
    bits=quantize.bits(q),
    noise_by_bin=_binned(x, limit, square),
  )


def sqnr_db(signal: float, noise: float) -> float:
  """10 log10(signal / noise): inf without noise, -inf without signal."""
  if noise == 0:
    return math.inf
  return 10 * math.log10(signal / noise) if signal > 0 else -math.inf


def magnitude(tensors: Mapping[str, jax.Array]) -> float:
  """The largest magnitude of all tensors, 0 for none."""
  return max(float(np.max(np.abs(x), initial=0)) for x in tensors.values())


def histogram(tensors: Mapping[str, jax.Array], limit: float) -> np.ndarray:
  """How many elements of all tensors lie in each bin, int64 [BINS]."""
  return sum(
    _binned(np.asarray(x), limit).astype(int) for x in tensors.values()
  )


def _binned(x: np.ndarray, limit: float, weights=None) -> np.ndarray:
  limit = limit or 1.0  # All zeros.
  weights = None if weights is None else weights.reshape(-1)
  x = x.reshape(-1).astype(np.float64)
  return np.histogram(x, BINS, (-limit, limit), weights=weights)[0]


def distributions(shape: tuple[int, int] = (256, 1024), seed: int = 0) -> dict:
  """The tensors on which formats are compared, float32 [rows, columns].

  Gaussian, Laplace, Student-t with 5 degrees of freedom, and Gaussian with 1 %
  of columns 50 times larger.
  """
  keys = jax.random.split(jax.random.key(seed), 3)
  plain = jax.random.normal(keys[0], (8, *shape))
  # By its definition; jax.random.t takes five times as long to compile.
  chi_squared = jnp.sum(plain[2:7] ** 2, axis=0)
  loud = jax.random.bernoulli(keys[2], 0.01, (1, shape[1]))
  return {
    'Gaussian': plain[0],
    'Laplace': jax.random.laplace(keys[1], shape),
    'Student-t(5)': plain[1] / jnp.sqrt(chi_squared / 5),
    'outlier channels': jnp.where(loud, 50 * plain[7], plain[7]),
  }


def sqnr_table(specs) -> dict[str, dict[str, float]]:
  """spec -> distribution -> SQNR in dB; along the rows."""
  data = distributions()
  return {
    str(quantize.Spec.parse(spec)): {
      name: measure({name: x}, spec).sqnr_db for name, x in data.items()
    }
    for spec in specs
  }
