"""Agile-Quant: two 4-bit products in one, and shifts as channel scales.

(w1 << 16) + w0 times a holds both products of signed 4-bit weights and an int8
activation, for all pairs, once the borrow of the low half is undone.
Activations with 3 % of channels 8 x larger: per-channel power-of-two factors
under one scale a tensor lower the error of INT8 and INT4. The ablation lets no
factor differ. Token pruning and hardware speed are not part of this claim.
"""

import jax
import jax.numpy as jnp
import numpy as np

import lowbit as lb
from lowbit import transforms
from lowbit.experiment import claims


def products_are_exact():
  """Both products of every pair of weights with every activation."""
  w = np.arange(-8, 8)
  w1, w0, a = np.meshgrid(w, w, np.arange(-128, 128), indexing='ij')
  # 12 bits hold a product, |w a| <= 1024; a lane of 16 leaves room to add.
  word = ((w1 << 16) + w0) * a
  low = ((word + (1 << 15)) & 0xFFFF) - (1 << 15)
  high = (word - low) >> 16
  return float((low == w0 * a).all() and (high == w1 * a).all())


def measure(seed, ablated):
  keys = jax.random.split(jax.random.key(seed), 2)
  x = jax.random.normal(keys[0], (2048, 512))
  loud = jax.random.permutation(keys[1], 512) < 16  # 3 %.
  x = jnp.where(loud[None], 8 * x, x)
  error = lambda y: float(jnp.mean((y - x) ** 2))
  numbers = {'exact': products_are_exact()}
  for bits in (8, 4):
    fmt = lb.formats.get(f'int{bits}')
    step, chosen = transforms.power_factors(x, fmt, 0 if ablated else 3)
    y = transforms.round_with_factors(x, fmt, step, chosen)
    plain = lb.fake_quantize(x, f'int{bits}@tensor')
    numbers[f'gain{bits}'] = error(plain) / error(y)
  return numbers


def get_claim():
  return claims.Claim(
    key='agile_quant',
    title='Agile-Quant: Activation-Guided Quantization for Faster Inference of '
    'LLMs on the Edge',
    reference='arXiv:2312.05693',
    recipe='transforms.power_factors',
    says='two 4-bit products fit one multiply; power-of-two channel factors '
    'cut the error of per-tensor activations',
    published='exact for all pairs; error 22 x (INT8) and 11 x (INT4) lower '
    '(computed)',
    ablation='the same factor for all channels',
    measure=measure,
    holds=lambda n: n['exact'] == 1 and n['gain8'] > 15 and n['gain4'] > 7,
    show='INT8 {gain8:.1f} x, INT4 {gain4:.1f} x lower error',
  )
