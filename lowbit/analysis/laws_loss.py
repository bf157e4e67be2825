"""Laws of the loss after training: N parameters, D tokens, and precision."""

import jax.numpy as jnp

from lowbit.analysis.laws import Law

_EXPONENTS = (0.2, 0.5, 0.8)
# Coefficients of terms and the loss of endless data: scales, not guesses.
_TERMS = (1.0, 30.0, 1e3, 3e4)
_FLOOR = (0.5, 1.5)


def _chinchilla(c, x):
  n, d = x['parameters'], x['tokens']
  return c['E'] + c['A'] * n ** -c['a'] + c['B'] * d ** -c['b']


CHINCHILLA = Law(
  'chinchilla',
  'arXiv:2203.15556',
  'E + A / N^a + B / D^b',
  'loss_nats',
  ('parameters', 'tokens'),
  _chinchilla,
  dict(E=_FLOOR, A=_TERMS, a=_EXPONENTS, B=_TERMS, b=_EXPONENTS),
  ('E', 'A', 'B'),
  published={
    'hoffmann': dict(E=1.69, A=406.4, a=0.34, B=410.7, b=0.28),
    # Besiroglu et al., 2024 (arXiv:2404.10102) fit the same runs again.
    'besiroglu': dict(E=1.8172, A=482.01, a=0.3478, B=2085.43, b=0.3658),
  },
)


def _kaplan(c, x):
  by_size = (c['Nc'] / x['parameters']) ** (c['aN'] / c['aD'])
  return (by_size + c['Dc'] / x['tokens']) ** c['aD']


KAPLAN = Law(
  'kaplan',
  'arXiv:2001.08361',
  '[(Nc / N)^(aN / aD) + Dc / D]^aD',
  'loss_nats',
  ('parameters', 'tokens'),
  _kaplan,
  dict(
    Nc=(1e10, 1e14, 1e18), aN=(0.03, 0.1, 0.3), Dc=(1e6, 1e10), aD=(0.2, 0.5)
  ),
  ('Nc', 'Dc', 'aN', 'aD'),
  # As fitted to Pythia by Ouyang et al., 2024 (arXiv:2411.17691).
  published={'pythia': dict(Nc=4.74e19, aN=0.045, Dc=7.63e10, aD=0.399)},
)


def capacity(bits, gamma, offset):
  """f(P) = 1 - exp(-P / gamma + offset), the share of parameters that count.

  The paper prints 1 - exp(-P / gamma) and says that it fits a translation, but
  not with which sign. With this one its coefficients give its own conclusions:
  7 bits are optimal, and inputs of 3 bits have no capacity left. Values below
  .001 count as .001: there the law does not hold.
  """
  return jnp.maximum(1 - jnp.exp(-bits / gamma + offset), 1e-3)


def precision(operands: tuple[str, ...] = ('w', 'a', 'kv')) -> Law:
  """Precision shrinks the parameters: Kumar et al., 2024 (arXiv:2411.04330).

  Args:
    operands: Which are quantized: weights, inputs, keys and values. The inputs
      of the law are `bits_w`, ...; 16 or 32 for float.
  """

  def value(c, x):
    n = x['parameters']
    for o in operands:
      n = n * capacity(x[f'bits_{o}'], c[f'g_{o}'], c[f'n_{o}'])
    return c['E'] + c['A'] * n ** -c['a'] + c['B'] * x['tokens'] ** -c['a']

  starts = dict(E=_FLOOR, A=_TERMS, B=_TERMS, a=_EXPONENTS)
  for o in operands:
    starts |= {f'g_{o}': (0.7, 2.0), f'n_{o}': (0.0,)}
  kept = {k for o in operands for k in (f'g_{o}', f'n_{o}')}
  published = {k: v for k, v in _KUMAR.items() if k in kept or '_' not in k}
  return Law(
    'precision',
    'arXiv:2411.04330',
    'E + A / (N prod (1 - exp(-P / g + n)))^a + B / D^a',
    'loss_nats',
    ('parameters', 'tokens', *(f'bits_{o}' for o in operands)),
    value,
    starts,
    ('E', 'A', 'B', *(f'g_{o}' for o in operands)),
    published={'integers': published},
  )


_KUMAR = dict(
  E=2.7648,
  A=4.299e3,
  B=1.806e4,
  a=0.4965,
  g_w=2.6745,
  n_w=0.3037,
  g_a=2.2102,
  n_a=1.4072,
  g_kv=0.9578,
  n_kv=2.4185,
)


def float_penalty(c, x):
  """What P037 adds to the loss: D^b / N^a log2(B) / (g E'^de M'^nu)."""
  spread = x['tokens'] ** c['b'] / x['parameters'] ** c['a']
  fields = (x['exponent'] + 0.5) ** c['de'] * (x['mantissa'] + 0.5) ** c['nu']
  return spread * jnp.log2(x['block']) / (c['g'] * fields)


def _capybara(c, x):
  by_size = c['n'] / x['parameters'] ** c['a']
  by_data = c['d'] / x['tokens'] ** c['b']
  return by_size + by_data + c['e'] + float_penalty(c, x)


CAPYBARA = Law(
  'capybara',
  'arXiv:2501.02423',
  'n / N^a + d / D^b + e + D^b / N^a log2(B) / (g (E + 1/2)^de (M + 1/2)^nu)',
  'loss_nats',
  ('parameters', 'tokens', 'exponent', 'mantissa', 'block'),
  _capybara,
  dict(
    n=_TERMS,
    a=_EXPONENTS,
    d=_TERMS,
    b=_EXPONENTS,
    e=_FLOOR,
    g=(10.0, 1e3, 1e5),
    de=(1.0, 3.0),
    nu=(1.0, 3.0),
  ),
  ('n', 'd', 'e', 'g'),
  published={
    'paper': dict(
      n=69.2343,
      a=0.2368,
      d=68973.0621,
      b=0.5162,
      e=1.9061,
      g=11334.5197,
      de=3.1926,
      nu=2.9543,
    )
  },
)


def _quartet(c, x):
  by_size = c['A'] / (x['parameters'] * c['effN']) ** c['a']
  by_data = c['B'] / (x['tokens'] * c['effD']) ** c['b']
  return (by_size + by_data) ** c['c'] + c['E']


_BF16 = dict(
  A=1.27445e5, a=0.57852, B=4.65834e5, b=0.53888, c=0.276416, E=1.340846
)
QUARTET = Law(
  'quartet',
  'arXiv:2505.14669',
  '[A / (N effN)^a + B / (D effD)^b]^c + E',
  'loss_nats',
  ('parameters', 'tokens'),
  _quartet,
  dict(
    A=(1.0, 1e2, 1e4),
    a=(0.2, 0.6),
    B=(1.0, 1e2, 1e4),
    b=(0.2, 0.6),
    c=(0.3, 1.0),
    E=(0.5, 1.5),
  ),
  ('A', 'B', 'c', 'E'),
  # First without quantization; then effN or effD with the others held.
  held=dict(effN=1.0, effD=1.0),
  published={
    'bf16': _BF16,
    'forward': {**_BF16, 'effN': 0.645163},
    'backward': {**_BF16, 'effD': 0.893469},
    'both': {**_BF16, 'effN': 0.645163, 'effD': 0.893469},
  },
)
