"""Low precision in the backward pass: each product quantizes its own operands.

y = x W has two products behind it, dx = dy W^T, summed over the outputs, and
dW = x^T dy, summed over the tokens. A block of scales must lie along the sum,
so that dy, W and x are quantized anew for each, from the float values:
Q(W) and Q(W^T) are different tensors. Rouhani et al., Microscaling Data Formats
for Deep Learning, 2023 (arXiv:2310.10537).
"""

import dataclasses
from collections.abc import Callable

import jax

from lowbit import quantize

Spec = quantize.Spec


@dataclasses.dataclass(frozen=True)
class Backward:
  """Specs of the operands of both products; None leaves one in float.

  Attributes:
    dx_gradient: dy in dx = dy W^T, in blocks along the outputs.
    dx_weight: W in it, along the outputs.
    dw_gradient: dy in dW = x^T dy, in blocks along the tokens.
    dw_input: x in it, along the tokens.
    reuse: W and x come as the forward pass quantized them, instead of
      dx_weight and dw_input. Only where that is exact: one scale a tensor, or
      square tiles, mean the same along either axis.
  """

  dx_gradient: Spec | str | None = None
  dx_weight: Spec | str | None = None
  dw_gradient: Spec | str | None = None
  dw_input: Spec | str | None = None
  reuse: bool = False

  def __post_init__(self):
    for name in FIELDS:
      value = getattr(self, name)
      if value is not None:
        object.__setattr__(self, name, Spec.parse(value))
    if self.reuse and (self.dx_weight or self.dw_input):
      raise ValueError(
        '`reuse` takes W and x from the forward pass; got dx_weight='
        f'{self.dx_weight} and dw_input={self.dw_input} as well. Leave them '
        'out, or set reuse=False.'
      )

  @property
  def stochastic(self) -> bool:
    """Whether an operand is rounded stochastically: a key is needed."""
    specs = [getattr(self, name) for name in FIELDS]
    return any(s is not None and s.rounding == 'stochastic' for s in specs)


FIELDS = ('dx_gradient', 'dx_weight', 'dw_gradient', 'dw_input')


def check_reuse(spec) -> None:
  """Raises unless a forward spec serves both axes alike.

  Raises:
    ValueError: If its blocks lie along one axis.
  """
  block = getattr(spec, 'block', None)
  square = isinstance(block, tuple) and block[0] == block[1]
  if spec is not None and block != 'tensor' and not square:
    raise ValueError(
      f'The forward operand {spec} has scales along its own sum, and cannot be '
      'reused in a product that is summed along the other axis. Use @tensor or '
      'a square tile (@t128x128), or reuse=False.'
    )


@dataclasses.dataclass(frozen=True)
class Axes:
  """Which axes each backward product sums over; all negative."""

  weight_outputs: tuple[int, ...]  # Of the weight.
  outputs: tuple[int, ...]  # Of y.
  y_tokens: tuple[int, ...]  # Of y.
  x_tokens: tuple[int, ...]  # Of x.


def product(
  own: Callable,
  rest,
  w: jax.Array,
  x: jax.Array,
  w_quantized: jax.Array,
  x_quantized: jax.Array,
  how: Backward,
  axes: Axes,
  key: jax.Array | None,
) -> jax.Array:
  """own(w_quantized, x_quantized, rest), with quantized gradients.

  Args:
    own: Linear in the weight and in the input; may add a bias from `rest`.
    rest: The layer's other params; their gradients are exact.
    w: The weight before the forward pass quantized it.
    x: The input likewise.
    w_quantized: What the forward pass multiplies.
    x_quantized: Likewise.
    how: Specs of the backward operands.
    axes: What they are summed over.
    key: PRNG key, if a spec of `how` rounds stochastically.

  Returns:
    y. Its gradients reach w_quantized and x_quantized, and so w and x through
    whatever quantized them; never w and x directly.
  """

  @jax.custom_vjp
  def run(operands, rest, kept):
    del kept
    return own(*operands, rest)

  def forward(operands, rest, kept):
    saved = (*operands, kept[2]) if how.reuse else kept
    return own(*operands, rest), (saved, rest)

  def backward(residuals, dy):
    (w, x, key), rest = residuals
    keys = jax.random.split(key, 4) if how.stochastic else [None] * 4
    w_dx = _cast(w, how.dx_weight, axes.weight_outputs, keys[0])
    x_dw = _cast(x, how.dw_input, axes.x_tokens, keys[1])
    dy_dx = _cast(dy, how.dx_gradient, axes.outputs, keys[2])
    dy_dw = _cast(dy, how.dw_gradient, axes.y_tokens, keys[3])
    # `own` is linear in each: where it is linearized does not matter.
    (dx,) = jax.vjp(lambda x: own(w_dx, x, rest), x_dw)[1](dy_dx)
    (dw,) = jax.vjp(lambda w: own(w, x_dw, rest), w_dx)[1](dy_dw)
    (d_rest,) = jax.vjp(lambda rest: own(w_dx, x_dw, rest), rest)[1](dy)
    return (dw, dx), d_rest, None

  run.defvjp(forward, backward)
  return run((w_quantized, x_quantized), rest, (w, x, key))


def _cast(value, spec, axis, key):
  if spec is None or not axis:
    return value
  key = key if spec.rounding == 'stochastic' else None
  return quantize.fake_quantize(value, spec, axis, key)
