"""Recipes of training: QAT, and low precision in all three products."""

from lowbit import intercept, quantize
from lowbit.recipes import weights

Recipe, Rule = intercept.Recipe, intercept.Rule
Spec = quantize.Spec


def qat(
  weight='int4@channel',
  activation='int8@token',
  estimator: quantize.Estimator = quantize.straight_through,
  ramp: quantize.Ramp | None = None,
  keep: tuple[str, ...] = weights.KEEP,
) -> Recipe:
  """Quantization-aware training: the backward pass stays in float.

  Args:
    weight: Spec, name, learned quantizer or schedule of weights; None leaves
      them.
    activation: The same for layer inputs.
    estimator: The gradient of a spec's rounding: straight_through, clipped,
      Stochastic(), Staircase(); learned quantizers bring their own.
    ramp: Phases quantization in.
    keep: Patterns of weights that stay in float.
  """
  rule = Rule('.*', weight, activation, estimator=estimator)
  name = ' '.join(str(s) for s in (rule.weight, rule.activation) if s)
  return Recipe(f'qat {name}', (*weights.kept(keep), rule), ramp=ramp)


def dqa(
  specs: tuple[Spec | str, ...] = (
    'int2z@channel',
    'int4z@channel',
    'int8z@channel',
  ),
  keep: tuple[str, ...] = (),
) -> Recipe:
  """DQA (P036): weights mixed of several widths, cooled to the lowest.

  While training, `quantize.bit_attention.cool` sets the temperature of the
  quantizers and `cost` joins the loss; in the end weights are stored by the
  first spec. Hermann et al., 2021 (arXiv:2103.13322).

  Args:
    specs: Of rising width; the first is what is left.
    keep: Patterns of weights that stay in float.
  """
  mix = quantize.BitAttention(specs)
  name = f'dqa {mix.lowest}'
  return Recipe(name, (*weights.kept(keep), Rule('.*', mix)))


def adapt_fixedpoint(
  word: int = 8, fraction: int = 4, keep: tuple[str, ...] = ()
) -> Recipe:
  """AdaPT (P046): fixed point with stochastic rounding, words set as it goes.

  `experiment.adaptive_words.train` decides on them. A layer's weight and input
  share a word. Kummer et al., 2021 (arXiv:2107.13490).

  Args:
    word: The first word length, bits.
    fraction: The first fraction length.
    keep: Patterns of weights whose layers stay in float.
  """
  how = quantize.TracedFixed(word, fraction)
  rule = Rule('.*', how, how)
  name = f'adapt_fixedpoint <{word}, {fraction}>'
  return Recipe(name, (*weights.kept(keep), rule))


def edgeqat(
  weight_bits: int = 4,
  activation_bits: int = 4,
  keep: tuple[str, ...] = weights.KEEP,
) -> Recipe:
  """EdgeQAT (P143): learned steps, of weights a channel, of inputs with offset.

  Train with `models.attention_guides` beside the labels and the teacher's
  logits. Shen et al., 2024 (arXiv:2402.10787).

  Args:
    weight_bits: Of weights.
    activation_bits: Of layer inputs.
    keep: Patterns of weights that stay in float.
  """
  weight = quantize.Lsq(weight_bits, block='channel')
  rule = Rule('.*', weight, quantize.LsqPlus(activation_bits))
  name = f'edgeqat w{weight_bits}a{activation_bits}'
  return Recipe(name, (*weights.kept(keep), rule))


def eqnet(bits: int = 4, ends: str = '(dense_0|head)/kernel') -> Recipe:
  """EQ-Net (P111): one width of a net that serves many.

  LSQ+ for weights, a step a channel, and inputs; every width has quantizers of
  its own beside the shared weights. Xu et al., 2023 (arXiv:2308.07650).

  Args:
    bits: Of weights and inputs.
    ends: Pattern of the first and last weights, which have 8 bits.
  """
  rule = lambda pattern, bits: Rule(
    pattern,
    quantize.LsqPlus(bits, offset=False, block='channel'),
    quantize.LsqPlus(bits),
  )
  return Recipe(f'eqnet {bits} bits', (rule(ends, 8), rule('.*', bits)))


def gaqat(bits: int = 4, signed: bool = False) -> Recipe:
  """GAQAT (P123): learned steps of weights and inputs, one a tensor.

  Train by `optim.two_gradients`, with `optim.freeze_ordered` first in the
  chain. Jiang et al., 2024 (arXiv:2412.05551).

  Args:
    bits: Of weights and inputs.
    signed: Whether inputs may be negative.
  """
  steps = quantize.Lsq(bits), quantize.Lsq(bits, signed)
  return Recipe(f'gaqat {bits} bits', (Rule('.*', *steps),))


def pams(
  bits: int = 8,
  learned: bool = True,
  keep: tuple[str, ...] = ('(head|tail)/kernel',),
) -> Recipe:
  """PAMS (P110): absmax weights, a learned symmetric clip of activations.

  For super-resolution nets, whose head and tail stay in float. Train with
  `models.distillation.spatial_distance` beside L1. Li et al., 2020
  (arXiv:2011.04212).

  Args:
    bits: Of weights and activations.
    learned: False takes each batch's largest magnitude instead.
    keep: Patterns of weights whose layers stay in float.
  """
  clip = quantize.Pams(bits) if learned else f'int{bits}@tensor'
  rule = Rule('.*', f'int{bits}@tensor', clip)
  return Recipe(f'pams {bits} bits', (*weights.kept(keep), rule))


def pretraining(
  weight: Spec | str = 'mxfp8_e4m3',
  activation: Spec | str = 'mxfp8_e4m3',
  gradient: Spec | str = 'mxfp8_e5m2',
  keep: tuple[str, ...] = (*weights.KEEP, 'head/kernel'),
) -> Recipe:
  """All three products of a layer in low precision (P015's scheme).

  Every operand is quantized along its own product's sum: the weight again for
  dx, the input again for dw, the gradient for both. Master weights stay in the
  dtype of the params. Rouhani et al., 2023 (arXiv:2310.10537).

  Args:
    weight: Spec of weights, in the forward pass and in dx.
    activation: Spec of inputs, in the forward pass and in dw.
    gradient: Spec of the gradients of outputs; '~stochastic' keeps them
      unbiased at 4 bits, and needs rngs={'lowbit': key}.
    keep: Patterns of weights whose layers stay in float.
  """
  specs = [Spec.parse(s) for s in (weight, activation, gradient)]
  weight, activation, gradient = specs
  how = intercept.Backward(gradient, weight, gradient, activation)
  rule = Rule('.*', weight, activation, backward=how)
  name = f'pretraining {weight} {activation} {gradient}'
  return Recipe(name, (*weights.kept(keep), rule))
