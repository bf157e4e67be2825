"""NeuZip: entropy-coded exponents of bfloat16 weights.

The embedded decoder, and Gaussian weights: real compressed bytes of a lossless
code, whether all bits come back, and the SNR of three and one mantissa bits.
Coding the whole 16-bit word by bytes of its mantissa gains nothing: the
ablation codes the mantissa's byte in place of the exponent.
"""

import ml_dtypes
import numpy as np

from lowbit.data import embedded
from lowbit.experiment import claims
from lowbit.quantize import entropy


def swapped(x):
  """The word with the mantissa's byte where the exponent was."""
  word = x.view(np.uint16).astype(np.uint32)
  low, high = word & 0x7F, (word >> 7) & 0xFF
  return ((word & 0x8000) | (low << 8) | (high >> 1)).astype(np.uint16)


def snr_db(x, bits):
  y = entropy.decompress(entropy.compress(x, bits)).astype(np.float64)
  exact = x.astype(np.float64)
  return 10 * np.log10((exact**2).sum() / ((exact - y) ** 2).sum())


def measure(seed, ablated):
  rng = np.random.default_rng(seed)
  gauss = (rng.standard_normal((512, 1024)) * 0.02).astype(ml_dtypes.bfloat16)
  layer = embedded.load()[1]['layers_3']['mlp']['down']['kernel']
  layer = np.asarray(layer).astype(ml_dtypes.bfloat16)
  numbers = {}
  for name, x in (('gauss', gauss), ('model', layer)):
    coded = swapped(x).view(ml_dtypes.bfloat16) if ablated else x
    c = entropy.compress(coded)
    back = entropy.decompress(c).view(np.uint16)
    numbers[name] = c.bits / x.size
    numbers[f'{name}_same'] = float((back == coded.view(np.uint16)).all())
  return {**numbers, 'm3': snr_db(gauss, 3), 'm1': snr_db(gauss, 1)}


def get_claim():
  return claims.Claim(
    key='neuzip',
    title='NeuZip: Memory-Efficient Training and Inference with Dynamic '
    'Compression',
    reference='arXiv:2410.20650',
    recipe='quantize.entropy.compress',
    says='the exponents of weights are compressible, losslessly, to a ratio '
    'of 0.66; dropping mantissa bits costs a known SNR',
    published='10.55 bits a weight (2.545 of them exponent); 31.5 / 19.7 dB '
    'at 3 / 1 mantissa bits (anchors)',
    ablation='the mantissa is coded in place of the exponent',
    measure=measure,
    holds=lambda n: (
      n['gauss_same'] == n['model_same'] == 1
      and abs(n['gauss'] - 10.55) < 0.1
      and n['model'] < 11
      and abs(n['m3'] - 31.5) < 0.2
      and abs(n['m1'] - 19.7) < 0.2
    ),
    show='{gauss:.2f} bits, decoder layer {model:.2f}; {m3:.1f} / {m1:.1f} dB',
    seeds=(0, 1),
  )
