"""Microscaling (MX): a shared power of two for each block of 32.

MXINT8 is a drop-in for float, MXFP6 nearly so, MXFP4 costs something: the SNR
on Gaussian tensors that drift in scale by 2^12 along the reduction axis. With
one power of two for the tensor in place of one for each block, narrow elements
lose the small values. The anchors are those of the stationary Gaussian.
"""

import jax
import jax.numpy as jnp

import lowbit as lb
from lowbit.experiment import claims

ELEMENTS = {'mxfp4': 'e2m1', 'mxfp6_e2m3': 'e2m3', 'mxint8': 'int8'}


def snr_db(x, spec):
  """Mean over blocks, so that every magnitude counts alike."""
  blocks = lambda a: a.reshape(-1, 32)
  error = blocks(x - lb.fake_quantize(x, spec))
  power = jnp.mean(blocks(x) ** 2, -1) / (jnp.mean(error**2, -1) + 1e-30)
  return float(10 * jnp.log10(1 / jnp.mean(1 / power)))


def measure(seed, ablated):
  x = jax.random.normal(jax.random.key(seed), (512, 1024))
  drift = 2.0 ** jnp.floor(jnp.linspace(0, 12, 1024))
  x = x * drift[None]
  name = lambda mx: f'{ELEMENTS[mx]}@tensor:e8m0-floor' if ablated else mx
  return {mx: snr_db(x, name(mx)) for mx in ELEMENTS}


def get_claim():
  return claims.Claim(
    key='mx',
    title='Microscaling Data Formats',
    reference='arXiv:2310.10537',
    recipe='Spec mxfp4, mxfp6_e2m3, mxint8',
    says='a shared exponent per block of 32 keeps MXINT8 near float and MXFP4 '
    'usable',
    published='SNR 18.8 / 30.9 / 41.7 dB on Gaussians (anchors, +-0.5 here)',
    ablation='one shared exponent for the whole tensor',
    measure=measure,
    holds=lambda n: (
      abs(n['mxfp4'] - 18.79) < 0.5
      and abs(n['mxfp6_e2m3'] - 30.94) < 0.5
      and abs(n['mxint8'] - 41.66) < 0.5
    ),
    show='{mxfp4:.2f} / {mxfp6_e2m3:.2f} / {mxint8:.2f} dB',
  )
