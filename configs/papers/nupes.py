"""NUPES: |w|^a rounded uniformly, one exponent for a tensor.

The ratio of RMSE, uniform over the best power, for one scale a tensor; and the
identity F(x) F(y) = F(xy) that keeps products of codes meaningful: the product
of two values is the value of the product of their codes. With a = 1 the
operator is uniform quantization. The tolerances are the spread of the ratios
between samples, which the largest of them moves.
"""

import jax
import jax.numpy as jnp
import numpy as np

import lowbit as lb
from lowbit.experiment import claims

EXPONENTS = range(24, 101, 2)  # In percent.


def rmse(x, name):
  return float(jnp.sqrt(jnp.mean((x - lb.fake_quantize(x, name)) ** 2)))


def best(x, bits, ablated):
  """(ratio of uniform to best RMSE, best exponent)."""
  tried = [100] if ablated else EXPONENTS
  errors = {a: rmse(x, f'power{bits}_{a}@tensor') for a in tried}
  a = min(errors, key=errors.get)
  return rmse(x, f'int{bits}@tensor') / errors[a], a / 100


def measure(seed, ablated):
  keys = jax.random.split(jax.random.key(seed), 3)
  n = (300_000,)
  gauss, a_gauss = best(jax.random.normal(keys[0], n), 4, ablated)
  laplace, a_laplace = best(jax.random.laplace(keys[1], n), 4, ablated)
  student, a_student = best(jax.random.t(keys[2], 4.0, n), 4, ablated)
  values = lb.formats.get('power4_64').values()[7:]  # 0 and up.
  codes = np.arange(8)
  products = (np.outer(codes, codes) / 49) ** (1 / 0.64)
  return {
    'product': float(np.abs(np.outer(values, values) - products).max()),
    'gauss': gauss,
    'laplace': laplace,
    'student': student,
    'a_gauss': a_gauss,
    'a_laplace': a_laplace,
    'a_student': a_student,
  }


def get_claim():
  return claims.Claim(
    key='nupes',
    title='NUPES: Non-Uniform Post-Training Quantization via Power Exponent '
    'Search',
    reference='arXiv:2308.05600',
    recipe='formats power4_24 .. power4_100',
    says='the heavier the tails, the smaller the best exponent and the larger '
    'its gain over uniform steps',
    published='4 bits: ratios 1.25 / 1.70 / 2.44 at a .64 / .49 / .32 '
    '(Gaussian, Laplace, t(4); anchors, +-.06 / .12 / .2 here)',
    ablation='a = 1: uniform',
    measure=measure,
    holds=lambda n: (
      abs(n['gauss'] - 1.25) < 0.06
      and abs(n['laplace'] - 1.70) < 0.12
      and abs(n['student'] - 2.44) < 0.2
      and 0.58 <= n['a_gauss'] <= 0.70
      and 0.44 <= n['a_laplace'] <= 0.54
      and 0.28 <= n['a_student'] <= 0.40
      and n['product'] < 1e-6
    ),
    show='{gauss:.2f} / {laplace:.2f} / {student:.2f} at a {a_gauss:.2f} / '
    '{a_laplace:.2f} / {a_student:.2f}',
  )
