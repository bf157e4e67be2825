"""Scaling laws of precision: what a law is, and all of them by name.

A law predicts one positive number of a training run, its loss or what
quantization adds to it, from counts: N parameters (without embeddings unless a
law says otherwise), D tokens, bits, block sizes. Losses are in nats a token.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import jax
import numpy as np

Coefficients = Mapping[str, float]
Inputs = Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True, eq=False)
class Law:
  """A functional form, its published coefficients, and where fits start.

  Attributes:
    name: As scripts and tables write it.
    reference: arXiv number.
    formula: For people.
    target: What is predicted: 'loss_nats', 'penalty_nats', ...
    inputs: Names of the arrays that `value` reads.
    value: (coefficients, inputs) -> target [n], in JAX or NumPy operations.
    starts: Coefficient -> values that fits start from, all combined.
    positive: Coefficients whose logarithm is fitted.
    held: Coefficients that fits leave at a value, unless told otherwise:
      others take their part.
    published: Name of a variant -> coefficients. Empty where the paper's are
      not known here.
  """

  name: str
  reference: str
  formula: str
  target: str
  inputs: tuple[str, ...]
  value: Callable[[Coefficients, Inputs], np.ndarray]
  starts: Mapping[str, Sequence[float]]
  positive: tuple[str, ...] = ()
  held: Coefficients = dataclasses.field(default_factory=dict)
  published: Mapping[str, Coefficients] = dataclasses.field(
    default_factory=dict
  )

  @property
  def coefficients(self) -> tuple[str, ...]:
    """Names, fitted and held."""
    return (*self.starts, *self.held)

  def predict(
    self, coefficients: Coefficients | str | None = None, **inputs
  ) -> np.ndarray:
    """The target at some inputs.

    Args:
      coefficients: Values, or the name of a published variant; None for the
        first of these.
      **inputs: Numbers or arrays that broadcast, one for each of `inputs`.

    Returns:
      float64, the broadcast shape.

    Raises:
      ValueError: If an input or a coefficient is missing or unknown, or an
        input is not positive where the law needs that.
    """
    values = self._coefficients(coefficients)
    given = check_inputs(self, inputs)
    with jax.enable_x64(True):
      return np.asarray(self.value(values, given), np.float64)

  def _coefficients(self, given) -> dict[str, float]:
    if given is None and self.published:
      given = next(iter(self.published))
    if given is None or isinstance(given, str):
      if given not in self.published:
        raise ValueError(
          f'Law {self.name!r} has no published coefficients {given!r}; there '
          f'are {sorted(self.published)}. Give values by name.'
        )
      given = self.published[given]
    given = {**self.held, **given}
    if set(given) != set(self.coefficients):
      raise ValueError(
        f'`coefficients` of law {self.name!r} must be {self.coefficients}, got '
        f'{tuple(given)}.'
      )
    return given


def check_inputs(law: Law, inputs: Inputs) -> dict[str, np.ndarray]:
  """The inputs of a law as float64 arrays of one shape.

  Raises:
    ValueError: If one is missing, unknown, negative or not finite.
  """
  if set(inputs) != set(law.inputs):
    raise ValueError(
      f'Law {law.name!r} takes {", ".join(law.inputs)}; got '
      f'{", ".join(inputs) or "nothing"}.'
    )
  arrays = {k: np.asarray(inputs[k], np.float64) for k in law.inputs}
  for name, array in arrays.items():
    if not np.all(np.isfinite(array)) or np.any(array < 0):
      raise ValueError(
        f'`{name}` of law {law.name!r} must be finite and not negative, got '
        f'{array}.'
      )
  shape = np.broadcast_shapes(*(a.shape for a in arrays.values()))
  return {k: np.broadcast_to(a, shape) for k, a in arrays.items()}
