"""What laws of precision imply: critical data, and the best use of bits."""

from collections.abc import Mapping, Sequence

import numpy as np
from scipy import optimize

from lowbit.analysis import laws_loss, laws_penalty
from lowbit.analysis.laws import Coefficients

# --- Floating-point training, P037 (arXiv:2501.02423).


def critical_tokens_float(
  parameters,
  exponent,
  mantissa,
  block,
  coefficients: Coefficients | None = None,
):
  """Tokens beyond which training an ExMy model longer makes it worse.

  There the falling d / D^b and the rising penalty have equal slopes.

  Args:
    parameters: N.
    exponent: E, bits.
    mantissa: M, bits.
    block: B, elements that share a scale, > 1.
    coefficients: Of `laws_loss.CAPYBARA`; None for the published.
  """
  c = coefficients or laws_loss.CAPYBARA.published['paper']
  if np.any(np.asarray(block) <= 1):
    raise ValueError(
      f'`block` must be above 1, got {block}: a block of 1 has no penalty, and '
      'no critical size.'
    )
  fields = (exponent + 0.5) ** c['de'] * (mantissa + 0.5) ** c['nu']
  ratio = c['d'] * c['g'] * parameters ** c['a'] * fields / np.log2(block)
  return ratio ** (1 / (2 * c['b']))


def split_float(bits, coefficients: Coefficients | None = None):
  """(E, M), real numbers, of least penalty with 1 + E + M = `bits`."""
  c = coefficients or laws_loss.CAPYBARA.published['paper']
  share = c['de'] / (c['de'] + c['nu'])
  return share * bits - 0.5, (1 - share) * bits - 0.5


def layout_float(
  bits: int, coefficients: Coefficients | None = None
) -> tuple[int, int]:
  """The best whole (E, M) with 1 + E + M = `bits`; bits >= 2."""
  if bits < 2:
    raise ValueError(f'`bits` must be at least 2 (a sign and one), got {bits}.')
  c = coefficients or laws_loss.CAPYBARA.published['paper']
  worth = lambda e: (e + 0.5) ** c['de'] * (bits - 1 - e + 0.5) ** c['nu']
  best = max(range(bits), key=worth)
  return best, bits - 1 - best


# --- Integer training and rounding afterwards, S01 (arXiv:2411.04330).


def critical_tokens(
  parameters,
  bits,
  loss: Coefficients | None = None,
  penalty: Coefficients | None = None,
):
  """Tokens beyond which training longer hurts once weights are rounded.

  (b B N^gN e^(P / g - offset) / (gD C))^(1 / (gD + b)).

  Args:
    parameters: N.
    bits: P of the weights after training.
    loss: Of `laws_loss.precision`; None for the published.
    penalty: Of `laws_penalty.POST_TRAINING`; None for the published.
  """
  c = loss or laws_loss.precision().published['integers']
  p = penalty or laws_penalty.POST_TRAINING.published['gptq']
  growth = np.exp(bits / p['g'] - p.get('b', 0.0))
  ratio = c['a'] * c['B'] * parameters ** p['gN'] * growth / (p['gD'] * p['C'])
  return ratio ** (1 / (p['gD'] + c['a']))


def best_bits(coefficients: Coefficients | None = None) -> float:
  """The precision of all operands that is optimal at any compute.

  With compute proportional to N D P it is where P / prod f(P) is least.

  Args:
    coefficients: Of `laws_loss.precision`, any operands; None for the
      published.
  """
  c = coefficients or laws_loss.precision().published['integers']
  operands = [k[2:] for k in c if k.startswith('g_')]

  def cost(bits):
    shares = [
      laws_loss.capacity(bits, c[f'g_{o}'], c[f'n_{o}']) for o in operands
    ]
    return float(bits / np.prod(np.asarray(shares)))

  grid = np.linspace(1, 32, 311)
  start = grid[np.argmin([cost(b) for b in grid])]
  around = (max(start - 0.5, 0.5), start + 0.5)
  return float(optimize.minimize_scalar(cost, bounds=around).x)


# --- Rounding after training.


def tokens_for_penalty(penalty_nats, parameters, bits, variant='unified'):
  """Tokens at which P031 (arXiv:2411.17691) expects a penalty.

  Args:
    penalty_nats: Wanted.
    parameters: N.
    bits: P; the variants of one width ignore it.
    variant: Of `laws_penalty.QID.published`, or coefficients.
  """
  c = variant
  if not isinstance(variant, Mapping):
    c = laws_penalty.QID.published[variant]
  ratio = penalty_nats * parameters ** c['a'] * bits ** c['g'] / c['k']
  return ratio ** (1 / c['b'])


def effective_parameters(parameters, tokens, block, variant='w4a4'):
  """Factor on N that a quantized model is worth, S02 (arXiv:2505.14302)."""
  c, base = laws_penalty.QAT.published[variant], laws_penalty.QAT_BASE
  grown = c['k'] * tokens ** c['gD'] * np.log2(block) ** c['gG']
  extra = grown * parameters ** (base['a'] - c['gN'])
  return (base['A'] / (base['A'] + extra)) ** (1 / base['a'])


# --- Inference, P008 (arXiv:2212.09720).


def bits_per_weight(bits, block, scale_bits=16):
  """k + scale bits / B: what a weight takes with one scale for `block`."""
  return bits + scale_bits / block


def best_width(
  widths: Sequence[float],
  total_bits: Sequence[float],
  losses: Sequence[float],
  budgets: int = 33,
) -> dict[float, float]:
  """How often each width has the least loss at equal total bits.

  Each width's losses are interpolated between its models, linearly in the
  logarithm of their total bits, and compared at budgets, evenly spread in that
  logarithm, that at least two widths reach with models of their family.

  Args:
    widths: k of each point.
    total_bits: Of its whole model.
    losses: Nats.
    budgets: How many.

  Returns:
    Width -> share of the budgets at which it is best.

  Raises:
    ValueError: If no two widths have a budget in common.
  """
  widths, losses = np.asarray(widths), np.asarray(losses)
  logs = np.log2(np.asarray(total_bits))
  curves = {}
  for k in np.unique(widths):
    order = np.argsort(logs[widths == k])
    curves[float(k)] = logs[widths == k][order], losses[widths == k][order]
  grid = np.linspace(logs.min(), logs.max(), budgets)
  table = np.array(
    [np.interp(grid, *c, left=np.nan, right=np.nan) for c in curves.values()]
  )
  table = table[:, np.sum(np.isfinite(table), axis=0) >= 2]
  if not table.size:
    raise ValueError(
      'No two widths have models of equal total bits. Give more sizes.'
    )
  wins = np.nanargmin(table, axis=0)
  return {k: float(np.mean(wins == i)) for i, k in enumerate(curves)}
