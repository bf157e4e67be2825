"""Layers whose products and sums run on integers, forward and backward.

Every factor is mapped onto dynamic fixed point where it is used
(`dynamic_fixed`): weights, inputs and incoming gradients, the last rounded
stochastically. Float32 holds what lies between the products: biases, the
inverse root of a variance, and the terms that a layer norm adds. Integer
Fine-tuning of Transformer-based Models, 2022 (arXiv:2209.09815); its inverse
root in fixed point is left out.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from lowbit.quantize import dynamic_fixed as fixed


@dataclasses.dataclass(frozen=True)
class Widths:
  """Bits of the integers of a layer, 2 .. 16 each.

  Attributes:
    weight: Of weights, gains and embeddings.
    activation: Of inputs; the paper keeps 12 beside 8-bit weights.
    gradient: Of incoming gradients.
    stochastic: How gradients are rounded; to nearest they are biased.
  """

  weight: int = 8
  activation: int = 12
  gradient: int = 8
  stochastic: bool = True

  def gradients(self, g: jax.Array, key: jax.Array) -> fixed.Fixed:
    """An incoming gradient as integers."""
    return fixed.to_fixed(g, self.gradient, key if self.stochastic else None)


MATMUL = (((1,), (0,)), ((), ()))
ROWS = (((1,), (1,)), ((0,), (0,)))  # [T, N], [T, N] -> [T].
COLUMNS = (((0,), (0,)), ((1,), (1,)))  # [T, N], [T, N] -> [N].


def _no_gradient(key):
  return np.zeros(key.shape, jax.dtypes.float0)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def linear(
  x: jax.Array, w: jax.Array, key: jax.Array, widths: Widths
) -> jax.Array:
  """x w: [T, in] and [in, out] -> float32 [T, out], all three products integer.

  Args:
    x: Float [T, in].
    w: Float [in, out].
    key: PRNG key of the gradient's rounding.
    widths: Bits.
  """
  return _linear_forward(x, w, key, widths)[0]


def _linear_forward(x, w, key, widths):
  qx = fixed.to_fixed(x, widths.activation)
  qw = fixed.to_fixed(w, widths.weight)
  return fixed.contract(qx, qw, MATMUL), (qx, qw, key)


def _linear_backward(widths, saved, g):
  qx, qw, key = saved
  qg = widths.gradients(g, key)
  dx = fixed.contract(qg, qw, (((1,), (1,)), ((), ())))
  dw = fixed.contract(qx, qg, (((0,), (0,)), ((), ())))
  return dx, dw, _no_gradient(key)


linear.defvjp(_linear_forward, _linear_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def embed(
  table: jax.Array, tokens: jax.Array, key: jax.Array, widths: Widths
) -> jax.Array:
  """Rows of an integer table; its gradient is an integer scatter-add.

  Args:
    table: Float [V, D].
    tokens: int32 [T], at most 2^31 / 2^(gradient bits - 1) of them.
    key: PRNG key of the gradient's rounding.
    widths: Bits.

  Returns:
    float32 [T, D].
  """
  return _embed_forward(table, tokens, key, widths)[0]


def _embed_forward(table, tokens, key, widths):
  q = fixed.to_fixed(table, widths.weight)
  rows = fixed.scaled(q.mantissa[tokens], q.exponent)
  return rows, (table.shape, tokens, key)


def _embed_backward(widths, saved, g):
  shape, tokens, key = saved
  qg = widths.gradients(g, key)
  _check_sum(qg, g.shape[0])
  total = jnp.zeros(shape, jnp.int32).at[tokens].add(qg.mantissa)
  gradient = fixed.scaled(total, qg.exponent)
  return gradient, _no_gradient(tokens), _no_gradient(key)


embed.defvjp(_embed_forward, _embed_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def layer_norm(
  x: jax.Array,
  gain: jax.Array,
  bias: jax.Array,
  key: jax.Array,
  widths: Widths,
  epsilon: float = 1e-5,
) -> jax.Array:
  """Layer norm of x [T, N] whose products and reductions are integer.

  Args:
    x: Float [T, N], N below 2^(32 - activation bits).
    gain: Float [N].
    bias: Float [N].
    key: PRNG key of the gradient's rounding.
    widths: Bits.
    epsilon: Added to the variance.

  Returns:
    float32 [T, N].
  """
  return _norm_forward(x, gain, bias, key, widths, epsilon)[0]


def _norm_forward(x, gain, bias, key, widths, epsilon):
  q = fixed.to_fixed(x, widths.activation)
  n = x.shape[1]
  _check_sum(q, 2 * n)
  # N (x - mean), exactly.
  apart = n * q.mantissa - jnp.sum(q.mantissa, axis=1, keepdims=True)
  apart = fixed.scaled(apart, q.exponent) / n
  centred = fixed.to_fixed(apart, widths.activation)
  variance = fixed.contract(centred, centred, ROWS) / n
  inverse = jax.lax.rsqrt(variance + epsilon)[:, None]
  normal = fixed.to_fixed(apart * inverse, widths.activation)
  q_gain = fixed.to_fixed(gain, widths.weight)
  y = _times(normal, q_gain) + bias[None]
  return y, (normal, q_gain, inverse, key)


def _norm_backward(widths, epsilon, saved, g):
  del epsilon
  normal, gain, inverse, key = saved
  first, second = jax.random.split(key)
  n = g.shape[1]
  qg = widths.gradients(g, first)
  _check_sum(qg, max(g.shape))
  d_bias = fixed.scaled(jnp.sum(qg.mantissa, axis=0), qg.exponent)
  d_gain = fixed.contract(qg, normal, COLUMNS)
  inner = widths.gradients(_times(qg, gain), second)
  total = fixed.scaled(jnp.sum(inner.mantissa, axis=1), inner.exponent) / n
  along = fixed.contract(inner, normal, ROWS) / n
  along = fixed.to_fixed(along, widths.activation)
  back = _times(normal, fixed.Fixed(along.mantissa[:, None], *_tail(along)))
  dx = inverse * (fixed.to_float(inner) - total[:, None] - back)
  return dx, d_gain, d_bias, _no_gradient(key)


layer_norm.defvjp(_norm_forward, _norm_backward)


def _tail(q):
  return q.exponent, q.bits


def _times(a: fixed.Fixed, b: fixed.Fixed) -> jax.Array:
  """a b, element by element, as an integer product: |a b| < 2^30."""
  other = b.mantissa
  if other.ndim < a.mantissa.ndim:
    other = other[None]
  return fixed.scaled(a.mantissa * other, a.exponent + b.exponent)


def _check_sum(q: fixed.Fixed, terms: int) -> None:
  if terms * q.limit >= 2**31:
    raise ValueError(
      f'A sum of {terms} integers of {q.bits} bits can leave int32. Use fewer '
      'bits, or fewer rows at once.'
    )
