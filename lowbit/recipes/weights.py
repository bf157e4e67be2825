"""Recipes of post-training quantization: one function a paper."""

from lowbit import intercept, quantize, solvers
from lowbit.recipes import prepare

Recipe, Rule = intercept.Recipe, intercept.Rule
# Embeddings are looked up, not multiplied: they stay as they are.
KEEP = ('embed/embedding',)


def kept(patterns: tuple[str, ...]) -> tuple[Rule, ...]:
  """Rules that leave what matches in float."""
  return tuple(Rule(p) for p in patterns)


def _name(method: str, weight, activation=None) -> str:
  parts = [method, str(weight)] + ([str(activation)] if activation else [])
  return ' '.join(p for p in parts if p)


def floating(keep: tuple[str, ...] = ()) -> Recipe:
  """Leaves all weights as they are: the baseline of every table."""
  del keep
  return Recipe('float32', (Rule('.*'),))


def nearest(
  weight: str | quantize.Spec,
  activation: str | quantize.Spec | None = None,
  keep: tuple[str, ...] = KEEP,
) -> Recipe:
  """Round to nearest.

  Args:
    weight: Spec of weights.
    activation: Spec of layer inputs, or None.
    keep: Patterns of weights that stay in float.
  """
  weight = quantize.Spec.parse(weight)
  rule = Rule('.*', weight, activation)
  return Recipe(_name('', weight, activation), (*kept(keep), rule))


def gptq(
  weight: str | quantize.Spec = 'int4z@g64',
  activation: str | quantize.Spec | None = None,
  act_order: bool = True,
  damping: float = 0.01,
  sequential: bool = True,
  keep: tuple[str, ...] = KEEP,
) -> Recipe:
  """GPTQ (G01): Frantar et al., 2022 (arXiv:2210.17323).

  Args:
    weight: Spec of weights.
    activation: Spec of layer inputs, or None.
    act_order: Visit columns by falling diagonal of the Hessian.
    damping: Fraction of the mean diagonal that is added to it.
    sequential: Calibrate later layers on quantized earlier ones.
    keep: Patterns of weights that stay in float.
  """
  weight = quantize.Spec.parse(weight)
  solver = solvers.Gptq(act_order, damping)
  rule = Rule('.*', weight, activation, solver)
  return Recipe(
    _name('gptq', weight, activation),
    (*kept(keep), rule),
    sequential=sequential,
  )


def awq(
  weight: str | quantize.Spec = 'int4z@g64', keep: tuple[str, ...] = KEEP
) -> Recipe:
  """AWQ (P049): Lin et al., 2023 (arXiv:2306.00978), scales without clips.

  For lowbit's decoder: scales are folded into its norms and up projections.
  """
  weight = quantize.Spec.parse(weight)
  return Recipe(
    _name('awq', weight),
    (*kept(keep), Rule('.*', weight)),
    prepare=(prepare.AwqScale(weight),),
  )


def smoothquant(
  weight: str | quantize.Spec = 'int8@channel',
  activation: str | quantize.Spec = 'int8@token',
  alpha: float = 0.5,
  keep: tuple[str, ...] = KEEP,
) -> Recipe:
  """SmoothQuant W8A8 (G02): Xiao et al., 2022 (arXiv:2211.10438)."""
  weight = quantize.Spec.parse(weight)
  rule = Rule('.*', weight, activation)
  return Recipe(
    _name('smoothquant', weight, rule.activation),
    (*kept(keep), rule),
    prepare=(prepare.Smooth(alpha),),
  )


def quarot(
  weight: str | quantize.Spec = 'int4@channel',
  activation: str | quantize.Spec = 'int4@token',
  seed: int = 0,
  act_order: bool = True,
  keep: tuple[str, ...] = KEEP,
) -> Recipe:
  """Hadamard rotations and GPTQ, W4A4 (G07): Ashkboos et al., 2024.

  The residual stream is rotated in the weights (R1); the inputs of out and
  down are rotated online (arXiv:2404.00456). Keys and values stay in float.
  """
  weight = quantize.Spec.parse(weight)
  solver = solvers.Gptq(act_order)
  online = Rule('.*/(out|down)/kernel', weight, activation, solver, rotate=True)
  rule = Rule('.*', weight, activation, solver)
  return Recipe(
    _name('hadamard gptq', weight, rule.activation),
    (*kept(keep), online, rule),
    prepare=(prepare.FoldNorms(), prepare.RotateResidual(seed)),
    sequential=True,
  )
