"""FP6-LLM: every code of E3M2 becomes an fp16 number by a shift and a product.

Sign to bit 15, exponent and mantissa behind it, shifted right by 5 - E into the
fields of fp16, times 2^(16 - 2^(E-1)): all 64 codes, subnormals included; codes
packed as 2- and 4-bit segments take 3/4 of a byte; SNR per channel on
Gaussians. The ablation leaves out the product that mends the bias.
"""

import jax
import jax.numpy as jnp
import numpy as np

import lowbit as lb
from lowbit.experiment import claims

FORMATS = {'e3m2': (3, 2), 'e2m3': (2, 3), 'e2m2': (2, 2), 'e3m1': (3, 1)}


def bit_trick(codes, exponent, mantissa, ablated):
  """Values of ExMy codes by fp16 bit arithmetic."""
  body = codes.astype(np.uint16) & (2 ** (exponent + mantissa) - 1)
  sign = codes.astype(np.uint16) >> (exponent + mantissa)
  word = (sign << 15) | (body << (15 - exponent - mantissa) >> (5 - exponent))
  mend = 1.0 if ablated else 2.0 ** (16 - 2 ** (exponent - 1))
  return word.astype(np.uint16).view(np.float16) * np.float16(mend)


def measure(seed, ablated):
  same = 0.0
  for name, (e, m) in FORMATS.items():
    fmt = lb.formats.get(name)
    codes = fmt.codes()
    got = bit_trick(codes, e, m, ablated)
    same += float(np.array_equal(got, np.asarray(fmt.decode(codes))))
  w = jax.random.normal(jax.random.key(seed), (256, 4096))
  q = lb.quantize(w, 'e3m2@channel')
  packed = lb.pack(q)
  back = float(jnp.array_equal(lb.unpack(packed).codes, q.codes))
  error = w - lb.dequantize(q)
  return {
    'same': same,
    'back': back,
    'bytes': packed.words.size / w.size,
    'snr': float(10 * jnp.log10(jnp.mean(w**2) / jnp.mean(error**2))),
  }


def get_claim():
  return claims.Claim(
    key='fp6_llm',
    title='FP6-LLM: Efficiently Serving LLMs Through FP6-Centric Algorithm-'
    'System Co-Design',
    reference='arXiv:2401.14112',
    recipe='Spec e3m2@channel, lowbit.pack',
    says='FP6 codes pack to 3/4 of a byte and become fp16 by a shift and one '
    'product',
    published='exact for all codes; 0.75 bytes a weight; 25.5 dB per channel',
    ablation='without the product that mends the exponent bias',
    measure=measure,
    holds=lambda n: (
      n['same'] == 4
      and n['back'] == 1
      and n['bytes'] == 0.75
      and abs(n['snr'] - 25.5) < 0.3
    ),
    show='{same:.0f} of 4 formats exact; {bytes:.2f} bytes; {snr:.1f} dB',
    seeds=(0,),
  )
