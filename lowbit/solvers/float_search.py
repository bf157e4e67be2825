"""LLM-FP4: the float formats and exponent biases that err least at the output.

A real exponent bias b absorbs the scale: the largest code is the clip c with b
= 2^E - log2 c + log2(2 - 2^-M) - 1. For each linear, in rounds: the bias of
each output channel of the weights, and that of the activations, are multiplied
by what lowers the output error most, for every split of the bits; then the
splits are chosen. Liu et al., LLM-FP4, 2023 (arXiv:2310.16836).
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from lowbit import formats, quantize

MULTIPLIERS = (0.01, 1.2, 101)  # Smallest, largest, steps, as released.


class FloatChoice(NamedTuple):
  """Formats and scales of one linear."""

  weight: quantize.QTensor  # [out, in], one scale a row.
  activation: formats.Minifloat
  activation_scale: jax.Array  # float32 [].
  error: jax.Array  # float32 [], squared output error of both.


def splits(bits: int) -> tuple[formats.Minifloat, ...]:
  """The candidates: M = 0..2 for 4 bits, M = 2..6 for 8, all codes finite."""
  mantissas = range(max(bits - 6, 0), bits - 1)
  return tuple(formats.Minifloat(bits - 1 - m, m) for m in mantissas)


def search_floats(
  w: jax.Array, x: jax.Array, bits: int = 4, rounds: int = 3
) -> FloatChoice:
  """Chooses formats and scales for y = Q(x) Q(w)^T.

  Args:
    w: Float [out, in].
    x: Inputs, float [tokens, in].
    bits: Of weights and activations, 3 to 8.
    rounds: Of the alternation; 3 in the paper.

  Returns:
    A `FloatChoice`.

  Raises:
    ValueError: If shapes or widths do not fit.
  """
  quantize.check_float(w, 'w')
  quantize.check_float(x, 'x')
  if w.ndim != 2 or x.ndim != 2 or w.shape[1] != x.shape[1]:
    raise ValueError(
      f'`w` [out, in] and `x` [tokens, in] must share `in`, got {w.shape} and '
      f'{x.shape}.'
    )
  if not 3 <= bits <= 8 or rounds < 1:
    raise ValueError(
      f'`bits` must lie in 3..8 and `rounds` be positive, got {bits} and '
      f'{rounds}.'
    )
  w, x = w.astype(jnp.float32), x.astype(jnp.float32)
  want = jnp.matmul(x, w.T, precision='highest')
  candidates = splits(bits)
  rows = [_start(jnp.max(jnp.abs(w), 1, keepdims=True), f) for f in candidates]
  whole = [_start(jnp.max(jnp.abs(x)), f) for f in candidates]
  middle = len(candidates) // 2
  weight = (candidates[middle], rows[middle])
  inputs = (candidates[middle], whole[middle])
  error = lambda weight, inputs: _error(
    _fake(w, weight[1], _grid(weight[0])),
    _fake(x, inputs[1], _grid(inputs[0])),
    want,
  )
  for _ in range(rounds):
    q = _fake(x, inputs[1], _grid(inputs[0]))
    found = [
      (f, _search_rows(w, q, want, b, _grid(f)))
      for f, b in zip(candidates, rows)
    ]
    weight = min(found, key=lambda c: float(error(c, inputs)))
    q = _fake(w, weight[1], _grid(weight[0]))
    found = [
      (f, _search_whole(x, q, want, b, _grid(f)))
      for f, b in zip(candidates, whole)
    ]
    inputs = min(found, key=lambda c: float(error(weight, c)))
  return FloatChoice(
    _coded(w, *weight),
    inputs[0],
    _scale(inputs[1], _grid(inputs[0])),
    error(weight, inputs),
  )


class _Grid(NamedTuple):
  """A format as numbers, so that all splits share one program."""

  mantissa_bits: jax.Array
  min_exponent: jax.Array
  max: jax.Array
  top: jax.Array  # 2^E + log2(2 - 2^-M) - 1: log2 c plus the bias.


def _grid(fmt: formats.Minifloat) -> _Grid:
  top = 2**fmt.exponent + math.log2(2 - 2**-fmt.mantissa) - 1
  return _Grid(
    jnp.int32(fmt.mantissa),
    jnp.int32(fmt.min_exponent),
    jnp.float32(fmt.max),
    jnp.float32(top),
  )


def _start(absmax, fmt) -> jax.Array:
  """The bias whose clip is the largest magnitude."""
  return _grid(fmt).top - jnp.log2(jnp.maximum(absmax, 1e-20))


def _scale(bias, grid) -> jax.Array:
  return jnp.exp2(grid.top - bias) / grid.max


@jax.jit
def _fake(v, bias, grid):
  scale = _scale(bias, grid)
  y = formats.round_to_float_grid(
    quantize.scales.divide(v, scale),
    grid.mantissa_bits,
    grid.min_exponent,
    grid.max,
  )
  return y * scale


@jax.jit
def _error(w, x, want):
  return jnp.sum((jnp.matmul(x, w.T, precision='highest') - want) ** 2)


def _multipliers() -> jax.Array:
  low, high, steps = MULTIPLIERS
  return jnp.linspace(low, high, steps, dtype=jnp.float32)


@jax.jit
def _search_rows(w, q, want, bias, grid):
  """The best multiple of each row's bias [out, 1], given the inputs q."""

  def errors(m):
    y = jnp.matmul(q, _fake(w, bias * m, grid).T, precision='highest')
    return jnp.sum((y - want) ** 2, axis=0)

  steps = _multipliers()
  best = jnp.argmin(jax.lax.map(errors, steps), axis=0)
  return bias * steps[best][:, None]


@jax.jit
def _search_whole(x, q, want, bias, grid):
  """The best multiple of the inputs' bias [], given the weights q."""
  steps = _multipliers()
  errors = jax.lax.map(
    lambda m: _error(q, _fake(x, bias * m, grid), want), steps
  )
  return bias * steps[jnp.argmin(errors)]


def _coded(w, fmt, bias) -> quantize.QTensor:
  scale = _scale(bias, _grid(fmt))
  spec = quantize.Spec(fmt, 'channel')
  like = quantize.QTensor(
    jnp.zeros(w.shape, jnp.uint8), scale, None, spec, (-1,)
  )
  return quantize.quantize_with(w, like)
