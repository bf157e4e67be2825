"""Microscaling (MX): a shared power of two for each block of 32.

MXINT8 is a drop-in for float, MXFP6 nearly so, MXFP4 costs something: the SNR
of all six formats on Gaussian tensors, which drift in scale by powers of two
along the reduction axis, up to 2^12; blocks must not see the drift, so that the
anchors are those of a stationary Gaussian. With one power of two for the tensor
in place of one for each block, narrow elements lose the small values.
"""

import jax
import jax.numpy as jnp

import lowbit as lb
from lowbit.experiment import claims

# Format -> (element, dB on a stationary Gaussian, computed independently).
ANCHORS = {
  'mxfp4': ('e2m1', 18.79),
  'mxfp6_e2m3': ('e2m3', 30.94),
  'mxfp6_e3m2': ('e3m2', 25.35),
  'mxfp8_e4m3': ('e4m3', 30.64),
  'mxfp8_e5m2': ('e5m2', 25.35),
  'mxint8': ('int8', 41.66),
}


def measure(seed, ablated):
  plain = jax.random.normal(jax.random.key(seed), (512, 1024))
  drift = jnp.repeat(2.0 ** (jnp.arange(32.0) % 13), 32)[None]
  numbers = {}
  for mx, (element, _) in ANCHORS.items():
    name = f'{element}@tensor:e8m0-floor' if ablated else mx
    # Each element against its own magnitude: the drift is taken out again.
    error = plain - lb.fake_quantize(plain * drift, name) / drift
    ratio = jnp.mean(plain**2) / jnp.mean(error**2)
    numbers[mx] = float(10 * jnp.log10(ratio))
  off = [abs(numbers[mx] - db) for mx, (_, db) in ANCHORS.items()]
  return {**numbers, 'off': max(off)}


def get_claim():
  return claims.Claim(
    key='mx',
    title='Microscaling Data Formats',
    reference='arXiv:2310.10537',
    recipe='Spec mxfp4, mxfp6_e2m3, mxfp6_e3m2, mxfp8_e4m3, mxfp8_e5m2, mxint8',
    says='a shared exponent per block of 32 keeps MXINT8 near float and MXFP4 '
    'usable',
    published='SNR 18.79 / 30.94 / 25.35 / 30.64 / 25.35 / 41.66 dB on '
    'Gaussians (anchors, +-0.1)',
    ablation='one shared exponent for the whole tensor',
    measure=measure,
    holds=lambda n: n['off'] < 0.1,
    show='{mxfp4:.2f} / {mxfp6_e2m3:.2f} / {mxfp6_e3m2:.2f} / {mxfp8_e4m3:.2f} '
    '/ {mxfp8_e5m2:.2f} / {mxint8:.2f} dB',
  )
