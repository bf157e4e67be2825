"""Simulated formats that are data: one compiled program trains in all of them.

`training.simulate` takes a recipe, whose specs are static: another format is
another program. Here the block and scale of an operand are static and the
numbers of its format are arrays, so that runs may be stacked by `vmap`.
"""

import dataclasses
import functools
import re
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lowbit import quantize
from lowbit.quantize import grid

Spec = quantize.Spec


class Format(NamedTuple):
  """A format as data; all leaves are scalars, or have one leading axis."""

  on: jax.Array  # bool; False leaves the operand in float.
  numbers: tuple[jax.Array, ...]  # `grid.numbers_of`.


def format_of(spec: Spec | str) -> Format:
  """The format of a spec; '' for none.

  Raises:
    ValueError: If it is unknown or no float grid, see `grid.layout`.
  """
  if not spec:
    return Format(np.bool_(False), grid.numbers_of('int8'))
  return Format(np.bool_(True), grid.numbers_of(spec))


@dataclasses.dataclass(frozen=True)
class Layout:
  """What is static: block and scale of each operand, None for plain float.

  Attributes:
    weight: `grid.layout` of the weights' specs.
    activation: Of the inputs'.
    gradient: Of the outputs' gradients'. dy is quantized once, in blocks along
      the outputs; both backward products use it, with the weight and the input
      of the forward pass.
    keep: Patterns of weights whose layers stay in float.
  """

  weight: Spec | None = None
  activation: Spec | None = None
  gradient: Spec | None = None
  keep: tuple[str, ...] = ()


OPERANDS = ('weight', 'activation', 'gradient')


def handler(layout: Layout, formats: dict[str, Format]) -> Callable:
  """Handler for `intercept.handling`.

  Args:
    layout: What is static.
    formats: A `Format` for each operand that has a layout.

  Returns:
    Call -> the layer's output.
  """
  kept = [re.compile(pattern) for pattern in layout.keep]

  def handle(call):
    found = call.found
    if found.input_axes is None or any(k.fullmatch(call.path) for k in kept):
      return call.own(call.weight, call.x)
    cast = lambda x, kind, axis: _cast(
      x, getattr(layout, kind), formats.get(kind), axis
    )
    w = cast(call.weight, 'weight', found.weight_axes)
    x = cast(call.x, 'activation', found.input_axes)
    y = call.own(w, x)
    if layout.gradient is None:
      return y
    return _cast_gradient(
      y, formats['gradient'], layout.gradient, found.outputs
    )

  return handle


def _cast(x, layout, fmt, axis):
  if layout is None:
    return x
  y = grid.fake_quantize_as(x, fmt.numbers, layout, axis)
  return jnp.where(fmt.on, y, x)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _cast_gradient(y, fmt, layout, axis):
  """y, whose gradient is quantized."""
  del fmt, layout, axis
  return y


def _forward(y, fmt, layout, axis):
  del layout, axis
  return y, fmt


def _backward(layout, axis, fmt, dy):
  return _cast(dy, layout, fmt, axis), None


_cast_gradient.defvjp(_forward, _backward)
