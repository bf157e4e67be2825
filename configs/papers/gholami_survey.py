"""Survey of quantization for inference: its identities, in integers.

The affine product needs three correction terms; with one of them dropped, the
product is wrong. Symmetric products are integer products times scales; signs
multiply by XNOR and popcount.
"""

import jax
import jax.numpy as jnp
import numpy as np

import lowbit as lb
from lowbit.experiment import claims


def measure(seed, ablated):
  keys = jax.random.split(jax.random.key(seed))
  x = jax.random.normal(keys[0], (64, 256)) + 0.7
  w = jax.random.normal(keys[1], (32, 256))
  qx, qw = (lb.quantize(a, 'int8z@tensor') for a in (x, w))
  ix, iw = (np.asarray(q.codes, np.int64) for q in (qx, qw))
  zx, zw = int(qx.zero[0, 0]), int(qw.zero[0, 0])
  corrected = ix @ iw.T - zx * iw.sum(1)[None] + 256 * zx * zw
  if not ablated:  # The term that depends on the data.
    corrected = corrected - zw * ix.sum(1)[:, None]
  scale = float(qx.scale[0, 0]) * float(qw.scale[0, 0])
  want = lb.dequantize(qx) @ lb.dequantize(qw).T
  affine = np.abs(corrected * scale - want).max() / np.abs(want).max()
  sx, sw = (lb.quantize(a, 'int8@channel') for a in (x, w))
  product = np.asarray(sx.codes, np.int64) @ np.asarray(sw.codes, np.int64).T
  scales = np.asarray(sx.scale, np.float64) @ np.asarray(sw.scale).T
  want = lb.dequantize(sx) @ lb.dequantize(sw).T
  symmetric = np.abs(product * scales - want).max() / np.abs(want).max()
  bits = lambda a: lb.quantize(a, 'int1@tensor').codes > 0
  agree = jnp.sum(~(bits(x)[:, None] ^ bits(w)[None]), -1)
  signs = lambda a: jnp.where(a < 0, -1, 1)
  xnor = jnp.array_equal(2 * agree - 256, signs(x) @ signs(w).T)
  return {
    'affine': float(affine),
    'symmetric': float(symmetric),
    'xnor': float(xnor),
  }


def get_claim():
  return claims.Claim(
    key='gholami_survey',
    title='A Survey of Quantization Methods for Efficient Neural Network '
    'Inference',
    reference='arXiv:2103.13630',
    recipe='Spec int8z@tensor, int8@channel, int1; analysis.taxonomy',
    says='simulated and integer-only arithmetic agree, with three correction '
    'terms for zero points; signs multiply by XNOR',
    published='exact identities',
    ablation='no correction for the zero point of the weights',
    measure=measure,
    holds=lambda n: (
      n['affine'] < 1e-5 and n['symmetric'] < 1e-5 and n['xnor'] == 1
    ),
    show='affine off by {affine:.1e}, symmetric {symmetric:.1e}, XNOR exact '
    '{xnor:.0f}',
  )
