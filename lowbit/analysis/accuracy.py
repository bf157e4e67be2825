"""What a format's values are good for: range, resolution, error on tensors."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np

from lowbit import formats, quantize


@dataclasses.dataclass(frozen=True)
class Summary:
  """A format in numbers."""

  name: str
  bits: float  # At rest, of one element.
  values: int  # Distinct finite ones.
  max: float  # Largest magnitude.
  smallest: float  # Smallest positive magnitude.
  decades: float  # log10(max / smallest).
  accuracy: float  # Decimal accuracy at worst over [max / 16, max].


def summary(fmt: formats.Format | str) -> Summary:
  """The summary of a format of at most 16 bits."""
  fmt = formats.get(fmt)
  values = fmt.values()
  magnitudes = np.abs(values[values != 0])
  top, least = float(magnitudes.max()), float(magnitudes.min())
  points = np.geomspace(top / 16, top, 400)
  if isinstance(fmt, formats.SideFormat):
    worst = math.nan
  else:
    worst = float(decimal_accuracy(fmt, points).min())
  return Summary(
    fmt.name,
    float(fmt.storage_bits),
    len(values),
    top,
    least,
    math.log10(top / least),
    worst,
  )


def code_table(fmt: formats.Format | str) -> list[tuple[str, float, float]]:
  """(bit pattern, value, distance to the next value up) of every code.

  Raises:
    TypeError: For a format with side data, which has no codes of its own.
  """
  fmt = formats.get(fmt)
  if isinstance(fmt, formats.SideFormat):
    raise TypeError(
      f'{fmt.name} has side data for each block, and no one table. Show its '
      'members, such as the inner format.'
    )
  codes = fmt.codes()
  values = np.asarray(fmt.decode(codes), np.float64)
  ordered = fmt.values()
  place = np.searchsorted(ordered, values, side='right')
  gaps = np.append(ordered, np.nan)[np.minimum(place, len(ordered))] - values
  mask = 2**fmt.bits - 1
  patterns = [f'{int(c) & mask:0{fmt.bits}b}' for c in codes]
  return list(zip(patterns, values.tolist(), gaps.tolist()))


def decimal_accuracy(fmt: formats.Format | str, x: np.ndarray) -> np.ndarray:
  """-log10 |log10(rounded / x)|: correct decimals at each magnitude.

  Gustafson and Yonemoto, Beating Floating Point at its Own Game, 2017. Numbers
  that round to themselves count as the float32 limit; to zero, as -inf.

  Args:
    fmt: Format or name.
    x: Positive magnitudes.

  Returns:
    float64, like `x`.
  """
  rounded = np.asarray(formats.get(fmt).round(np.asarray(x, np.float32)))
  ratio = np.abs(rounded.astype(np.float64)) / np.asarray(x, np.float64)
  with np.errstate(divide='ignore'):
    decades = np.abs(np.log10(ratio))
  return -np.log10(np.maximum(decades, 2.0**-24))


def tensors(shape: tuple[int, int] = (512, 1024), seed: int = 0) -> dict:
  """The tensors on which formats are compared, float32 [rows, columns].

  Gaussian, Laplace, Student-t with 5 degrees of freedom, and Gaussian with 1 %
  of columns 50 times larger.
  """
  keys = jax.random.split(jax.random.key(seed), 5)
  loud = jax.random.bernoulli(keys[4], 0.01, (1, shape[1]))
  plain = jax.random.normal(keys[3], shape)
  return {
    'Gaussian': jax.random.normal(keys[0], shape),
    'Laplace': jax.random.laplace(keys[1], shape),
    'Student-t(5)': jax.random.t(keys[2], 5.0, shape),
    'outlier channels': jnp.where(loud, 50 * plain, plain),
  }


def sqnr_db(x: jax.Array, spec: quantize.Spec | str) -> float:
  """10 log10(E x^2 / E (x - q)^2) of fake quantization along the last axis."""
  return float(_sqnr(x, quantize.Spec.parse(spec)))


def _sqnr(x, spec):
  error = x - quantize.fake_quantize(x, spec)
  return 10 * jnp.log10(jnp.mean(x**2) / jnp.mean(error**2))
