"""Recipes: ordered rules from the paths of matmul weights to what is done."""

import dataclasses
import re
from collections.abc import Callable, Iterable

from lowbit import quantize, solvers
from lowbit.intercept import backward as backward_lib

Quantizer = quantize.Spec | Callable  # A spec, or a frozen callable value.


@dataclasses.dataclass(frozen=True)
class Rule:
  """What happens to the weights whose path matches.

  Attributes:
    pattern: Regular expression for the whole path of a weight, such as
      'layers_0/attention/query/kernel'.
    weight: Spec or name; None leaves the weight in float. For training also a
      learned quantizer (`quantize.Lsq`, ...), `quantize.Static`,
      `quantize.Delayed`, or `quantize.Progressive`.
    activation: The same for the layer's input.
    solver: How the codes are found.
    rotate: Multiply by an online Hadamard transform on the input side, which
      the weight undoes: y = (x H) (H^T W).
    backward: Specs of the backward products; None leaves them in float.
    estimator: The gradient of a spec's rounding, see `quantize.fake_quantize`.
  """

  pattern: str
  weight: Quantizer | str | None = None
  activation: Quantizer | str | None = None
  solver: solvers.Solver = solvers.Nearest()
  rotate: bool = False
  backward: backward_lib.Backward | None = None
  estimator: quantize.Estimator = quantize.straight_through

  def __post_init__(self):
    for field in ('weight', 'activation'):
      value = getattr(self, field)
      if isinstance(value, str):
        object.__setattr__(self, field, quantize.Spec.parse(value))
    self._check_estimator()
    if self.backward is not None and self.backward.reuse:
      backward_lib.check_reuse(self.weight)
      backward_lib.check_reuse(self.activation)
    try:
      re.compile(self.pattern)
    except re.error as error:
      raise ValueError(
        f'`pattern` {self.pattern!r} is no regular expression: {error}.'
      ) from error

  def _check_estimator(self):
    specs = [
      s for f in ('weight', 'activation') for s in _specs(getattr(self, f))
    ]
    for spec in specs:
      quantize.forward_spec(spec, self.estimator)
    if not specs and self.estimator is not quantize.straight_through:
      raise ValueError(
        f'`estimator` {self.estimator} of rule {self.pattern!r} is the '
        'gradient of a spec, and there is none: got '
        f'weight={self.weight}, activation={self.activation}. Learned and '
        'held quantizers bring their own gradient; leave `estimator` out.'
      )

  @property
  def changes(self) -> bool:
    """Whether the rule does anything."""
    return any((self.weight, self.activation, self.backward))

  @property
  def needs_statistics(self) -> bool:
    """Whether its solver must see statistics of the layer's input."""
    return self.weight is not None and self.solver.needs_statistics


def _specs(how) -> list[quantize.Spec]:
  """The specs whose gradient an estimator gives."""
  if isinstance(how, quantize.Progressive):
    return [spec for spec in how.specs if spec is not None]
  return [how] if isinstance(how, quantize.Spec) else []


@dataclasses.dataclass(frozen=True)
class Recipe:
  """Ordered rules; the first that matches a path wins.

  Attributes:
    name: For tables.
    rules: See `Rule`. Every matmul weight must match one; end with
      Rule('.*') to leave the rest in float.
    prepare: Rewrites of the params that come first, such as folding norms:
      (params, statistics) -> params, where statistics() calibrates.
    sequential: Later layers are calibrated on the outputs of quantized ones.
    ramp: Phases quantization in while training; needs a step.
  """

  name: str
  rules: tuple[Rule, ...]
  prepare: tuple[Callable, ...] = ()
  sequential: bool = False
  ramp: quantize.Ramp | None = None

  def rule(self, path: str) -> Rule | None:
    """The first rule that matches a path."""
    return next((r for r in self.rules if re.fullmatch(r.pattern, path)), None)

  def fits(self, paths: Iterable[str]) -> bool:
    """Whether every path has a rule, and every rule is the first of a path."""
    found = [self.rule(path) for path in paths]
    return None not in found and all(r in found for r in self.rules)

  def match(self, paths: Iterable[str]) -> dict[str, Rule]:
    """The rule of every path.

    Raises:
      ValueError: If a rule is the first match of no path, or a path matches no
        rule; the paths are listed.
    """
    paths = sorted(paths)
    found = {path: self.rule(path) for path in paths}
    loose = [path for path, rule in found.items() if rule is None]
    if loose:
      raise ValueError(
        f'Recipe {self.name!r} has no rule for the matmul weights '
        f"{', '.join(loose)}. Add one; Rule('.*') leaves them in float."
      )
    idle = [r.pattern for r in self.rules if r not in found.values()]
    if idle:
      raise ValueError(
        f'Recipe {self.name!r} has rules that match nothing: {idle}. The '
        f'matmul weights are {", ".join(paths)}.'
      )
    return found
