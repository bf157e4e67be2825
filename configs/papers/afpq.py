"""AFPQ: one scale above zero and one below.

Gain in dB over one scale at groups of 128, on Gaussian, Laplace and t(5)
tensors, and on groups that are skewed; a zero point on the same float grid is
the baseline that loses there.
"""

import jax
import jax.numpy as jnp

import lowbit as lb
from lowbit.experiment import claims


def snr_db(x, spec):
  error = x - lb.fake_quantize(x, spec)
  return float(10 * jnp.log10(jnp.mean(x**2) / jnp.mean(error**2)))


def measure(seed, ablated):
  keys = jax.random.split(jax.random.key(seed), 4)
  shape = (512, 2048)
  heavy = jnp.abs(jax.random.laplace(keys[3], shape)) * 3
  normal = jax.random.normal(keys[0], shape)
  tensors = {
    'gauss': normal,
    'laplace': jax.random.laplace(keys[1], shape),
    'student': jax.random.t(keys[2], 5.0, shape),
    'skewed': jnp.where(normal > 0, heavy, normal),
  }
  spec = 'e2m1@g128' if ablated else 'afpq_e2m1@g128'
  gain = {
    k: snr_db(x, spec) - snr_db(x, 'e2m1@g128') for k, x in tensors.items()
  }
  zero_point = snr_db(tensors['skewed'], 'e2m1z@g128')
  return {**gain, 'over_zero': snr_db(tensors['skewed'], spec) - zero_point}


def get_claim():
  return claims.Claim(
    key='afpq',
    title='AFPQ: Asymmetric Floating Point Quantization for LLMs',
    reference='arXiv:2311.01792',
    recipe='Spec afpq_e2m1@g128',
    says='separate scales of the two signs help FP4, most on skewed groups, '
    'where a zero point hurts it',
    published='anchors +0.26 / +0.65 / +0.83 dB (Gaussian, Laplace, t(5)), '
    '+-0.1',
    ablation='one scale (e2m1@g128)',
    measure=measure,
    holds=lambda n: (
      abs(n['gauss'] - 0.26) < 0.1
      and abs(n['laplace'] - 0.65) < 0.1
      and abs(n['student'] - 0.83) < 0.1
      and n['skewed'] > 1.0
      and n['over_zero'] > 1.0
    ),
    show='+{gauss:.2f} / +{laplace:.2f} / +{student:.2f} dB, skewed '
    '+{skewed:.2f}, {over_zero:+.2f} over a zero point',
  )
