"""Any-Precision LLM: the codes of every width are the top bits of the widest.

Rows of 4096 Gaussians; the mean squared error of each width against values that
were computed independently, and against absmax integers. The ablation keeps the
nesting but takes equal steps, as in AdaBits: the top bits of an int8 code.
"""

import jax
import jax.numpy as jnp
import numpy as np

import lowbit as lb
from lowbit import codebooks
from lowbit.experiment import claims
from lowbit.quantize import nested

WANT = {3: 0.0338, 4: 0.0092, 5: 0.00237, 6: 5.9e-4, 8: 3.0e-5}


def measure(seed, ablated):
  w = jax.random.normal(jax.random.key(seed), (16, 4096))
  if ablated:
    q = lb.quantize(w, 'int8@channel')
    at = lambda b: lb.dequantize(nested.narrow(q, b, truncate=True))
  else:
    at = codebooks.nest(w).dequantize
  mse = {b: float(jnp.mean((w - at(b)) ** 2)) for b in WANT}
  ratio = [abs(np.log(mse[b] / WANT[b])) for b in WANT]
  uniform = lb.fake_quantize(w, 'int4@channel')
  gain = float(jnp.mean((w - uniform) ** 2)) / mse[4]
  return {'off': max(ratio), 'gain': gain} | {
    f'b{b}': mse[b] for b in (3, 4, 6)
  }


def get_claim():
  return claims.Claim(
    key='any_precision',
    title='Any-Precision LLM',
    reference='arXiv:2402.10517',
    recipe='codebooks.nest',
    says='one stored 8-bit code serves every width from 3, each at the error '
    'of a codebook of its own',
    published='MSE .0338 / .0092 / 5.9e-4 at 3 / 4 / 6 bits (anchors, 15 %)',
    ablation='top bits of uniform int8 codes',
    measure=measure,
    holds=lambda n: n['off'] < 0.15 and n['gain'] > 2,
    show='{b3:.4f} / {b4:.4f} / {b6:.2e}; 4 bits {gain:.2f} x better than '
    'absmax integers',
  )
