"""NUPES: power exponents, searched without data or learned with the codes.

Weights are rounded uniformly in |w|^a: w^ = s sign(c) (|c| / n)^(1/a), n =
2^(b-1) - 1. Yvinec et al., NUPES, 2023 (arXiv:2308.05600), after PowerQuant,
2023 (arXiv:2301.09858). How soft rounding hardens is worked out here: the paper
does not print its schedule.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from lowbit import formats, quantize

EXPONENTS = tuple(range(20, 101, 4))  # Per cent.


def search_power(
  w: jax.Array, bits: int, exponents: tuple[int, ...] = EXPONENTS
) -> int:
  """The exponent, in per cent, that errs least on a matrix or a list of them.

  One exponent serves all, so that activations pass from layer to layer in its
  domain: a* minimises the sum of |W - Q_a(W)|_2, one scale for each row.

  Args:
    w: Float [out, in], or a sequence of such.
    bits: Of a code.
    exponents: Candidates.
  """
  matrices = w if isinstance(w, (list, tuple)) else [w]
  specs = {a: f'power{bits}_{a}@channel' for a in exponents}
  error = lambda m, s: jnp.linalg.norm(m - quantize.fake_quantize(m, s))
  total = {
    a: sum(float(error(m, s)) for m in matrices) for a, s in specs.items()
  }
  return min(total, key=total.get)


def learn_power(
  w: jax.Array,
  hessian: jax.Array,
  bits: int,
  steps: int = 400,
  learning_rate: float = 0.2,
) -> quantize.QTensor:
  """Learns the exponent and the codes by the output error tr(D H D^T).

  Codes are real numbers that may move over their whole range, rounded softly
  and ever harder; the exponent is learned in the first half, and then held at
  a whole per cent.

  Args:
    w: Float [out, in].
    hessian: float32 [in, in], the mean of x x^T.
    bits: Of a code, 3 to 8.
    steps: Of Adam.
    learning_rate: Of the codes, in code steps; a twentieth for the exponent.

  Returns:
    A `QTensor` with one scale a row and a power format. Never worse than the
    searched exponent with nearest rounding, which it starts from.

  Raises:
    ValueError: If shapes or widths do not fit.
  """
  quantize.check_float(w, 'w')
  if w.ndim != 2 or hessian.shape != (w.shape[1],) * 2 or not 3 <= bits <= 8:
    raise ValueError(
      f'`w` must be [out, in], `hessian` [in, in] and `bits` in 3..8; got '
      f'{w.shape}, {hessian.shape} and {bits}.'
    )
  w = w.astype(jnp.float32)
  start = search_power(w, bits)
  plain = quantize.quantize(w, f'power{bits}_{start}@channel')
  n = 2 ** (bits - 1) - 1
  scale = plain.scale
  power = jnp.float32(start / 100)
  codes = _codes(w, scale, power, n)
  half = steps // 2
  codes, power = _learn(
    w, hessian, scale, codes, power, n, half, learning_rate, True
  )
  percent = int(np.clip(round(float(power) * 100), 10, 100))
  # The same weights in the domain of the whole per cent.
  value = _decode(codes, power, n)
  codes = _codes(value, 1.0, jnp.float32(percent / 100), n)
  codes, _ = _learn(
    w,
    hessian,
    scale,
    codes,
    jnp.float32(percent / 100),
    n,
    steps - half,
    learning_rate,
    False,
  )
  index = jnp.rint(codes).astype(jnp.int32) + n
  spec = quantize.Spec(formats.get(f'power{bits}_{percent}'), 'channel')
  learned = quantize.QTensor(
    index.astype(jnp.uint8), scale, None, spec, plain.axis
  )
  error = lambda q: float(_error(quantize.dequantize(q) - w, hessian))
  return min(learned, plain, key=error)


def _error(d, hessian):
  return jnp.sum(jnp.matmul(d, hessian, precision='highest') * d)


def _codes(w, scale, power, n):
  """Real codes of weights: sign(w) n |w / s|^a."""
  return jnp.sign(w) * n * jnp.minimum(jnp.abs(w) / scale, 1.0) ** power


def _decode(codes, power, n):
  """The inverse, for scale 1; |c| is kept off 0, where d/da has no limit."""
  magnitude = jnp.maximum(jnp.abs(codes) / n, 1e-6)
  return jnp.sign(codes) * jnp.exp(jnp.log(magnitude) / power)


def _soft_round(codes, hardness):
  """Between codes and their rounding: a sigmoid around each half."""
  low = jnp.floor(codes)
  rest = codes - low - 0.5
  edge = jnp.tanh(hardness * 0.5)
  return low + 0.5 + 0.5 * jnp.tanh(hardness * rest) / edge


@functools.partial(jax.jit, static_argnums=(5, 6, 8))
def _learn(w, hessian, scale, codes, power, n, steps, rate, with_power):
  """Adam on codes and, if asked, on the exponent."""
  unit = _error(w, hessian) + 1e-30

  def loss(parameters, hardness):
    codes, power = parameters
    power = power if with_power else jax.lax.stop_gradient(power)
    value = _decode(_soft_round(codes, hardness), power, n) * scale
    return _error(value - w, hessian) / unit

  def step(carry, i):
    parameters, first, second = carry
    t = i.astype(jnp.float32)
    # From nearly the real codes to nearly whole ones, over both halves.
    hardness = (1.0 if with_power else 5.0) * 5.0 ** (t / steps)
    grads = jax.grad(loss)(parameters, hardness)
    first = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, first, grads)
    second = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, second, grads)
    move = lambda m, v: (
      (m / (1 - 0.9 ** (t + 1)))
      / (jnp.sqrt(v / (1 - 0.999 ** (t + 1))) + 1e-12)
    )
    codes, power = parameters
    codes = jnp.clip(codes - rate * move(first[0], second[0]), -n, n)
    power = jnp.clip(power - rate / 20 * move(first[1], second[1]), 0.1, 1.0)
    return ((codes, power), first, second), None

  start = (codes, power)
  zeros = jax.tree.map(jnp.zeros_like, start)
  (found, _, _), _ = jax.lax.scan(
    step, (start, zeros, zeros), jnp.arange(steps)
  )
  return found
