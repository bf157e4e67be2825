"""Signal-to-noise of every format and scale rule, within 0.1 dB of its anchor.

The anchors were computed in float64 by code that is independent of lowbit, on
2^20 samples; here 2^19. `quantize_test.py` and `side_test.py` check some of
them in the fast set.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lowbit as lb

pytestmark = pytest.mark.slow

RULES = ('floor', 'ceil', 'rceil', 'even', 'rne', 'pow2mse')
MX = {
  'e2m1': (18.79, 16.83, 18.76, 19.03, 18.56, 19.05),
  'e2m3': (30.94, 28.77, 30.96, 30.99, 30.45, 31.00),
  'e3m2': (25.35, 25.54, 25.54, 25.54, 25.54, 25.54),
  'e4m3': (30.64, 31.53, 31.53, 31.19, 31.53, 31.53),
  'e5m2': (25.35, 25.54, 25.54, 25.54, 25.54, 25.54),
  'int8': (41.66, 35.64, 41.61, None, 39.36, 41.66),
}
LAPLACE = {
  'mxfp4': 17.94,
  'e2m1@b32:e8m0-even': 18.14,
  'e2m1@b32:e8m0-pow2mse': 18.22,
  'mxfp6_e2m3': 30.30,
  'mxfp8_e4m3': 29.97,
  'e4m3@b32:e8m0-rceil': 31.55,
  'mxint8': 40.02,
  'nvfp4': 20.66,
}
COLUMNS = (
  *('int4', 'int4z', 'e2m1', 'nf4', 'afpq_e2m1', 'afpq_nf4', 'bitmod4'),
  *('int3', 'int3z', 'e2m0', 'afpq_e2m0', 'bitmod3'),
)
# fmt: off
GROUPS = {
  ('gauss', 64): (19.36, 20.82, 19.52, 20.73, 19.90, 21.18, 20.73,
                  11.99, 14.19, 12.90, 13.50, 14.78),
  ('gauss', 128): (18.60, 19.95, 19.26, 20.39, 19.52, 20.72, 20.19,
                   11.24, 13.33, 12.44, 12.90, 14.20),
  ('laplace', 128): (15.91, 17.71, 18.34, 18.89, 18.99, 19.69, 19.45,
                     8.96, 11.28, 10.65, 11.55, 12.99),
  ('student', 128): (15.28, 17.49, 18.17, 18.58, 19.00, 19.61, 19.37,
                     8.25, 10.93, 10.16, 11.32, 12.65),
}
# fmt: on


@functools.cache
def tensor(name):
  keys = jax.random.split(jax.random.key(0), 3)
  shape = (4096, 128)
  return {
    'gauss': lambda: jax.random.normal(keys[0], shape),
    'laplace': lambda: jax.random.laplace(keys[1], shape),
    'student': lambda: jax.random.t(keys[2], 5.0, shape),
  }[name]()


def check(name, spec, want):
  x = tensor(name)
  error = x - lb.fake_quantize(x, spec)
  snr = 10 * jnp.log10(jnp.mean(x**2) / jnp.mean(error**2))
  np.testing.assert_allclose(snr, want, atol=0.1, err_msg=f'{name} {spec}')


@pytest.mark.parametrize('element', MX)
def test_mx_by_rule(element):
  for rule, want in zip(RULES, MX[element], strict=True):
    if want is not None:
      check('gauss', f'{element}@b32:e8m0-{rule}', want)


def test_heavier_tails():
  for spec, want in LAPLACE.items():
    check('laplace', spec, want)
  check('gauss', 'nvfp4', 20.44)
  check('student', 'nvfp4', 20.69)


@pytest.mark.parametrize('name, group', GROUPS)
def test_groups(name, group):
  for element, want in zip(COLUMNS, GROUPS[name, group], strict=True):
    check(name, f'{element}@g{group}', want)


@pytest.mark.parametrize(
  'sigma, wanted',
  [
    (1.0, (40.2, 37.5, 31.5)),
    (4.0, (28.9, 32.1, 31.5)),
    (16, (18.4, 26.1, 31.5)),
  ],
)
def test_casts_taper_as_posits_do(sigma, wanted):
  """posit8_0, posit8_1 and E4M3 of N(0, sigma^2), without a scale."""
  x = sigma * tensor('gauss')
  for name, want in zip(('posit8_0', 'posit8_1', 'e4m3'), wanted, strict=True):
    error = x - lb.fake_quantize(x, f'{name}@tensor:unit')
    snr = 10 * jnp.log10(jnp.mean(x**2) / jnp.mean(error**2))
    np.testing.assert_allclose(snr, want, atol=0.15)
