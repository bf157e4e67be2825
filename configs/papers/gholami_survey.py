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
from lowbit.quantize import integer_dot


def measure(seed, ablated):
  keys = jax.random.split(jax.random.key(seed))
  x = jax.random.normal(keys[0], (64, 256)) + 0.7
  w = jax.random.normal(keys[1], (32, 256))

  def off(spec):
    """Largest error of the integer product, relative to the largest value."""
    qx, qw = lb.quantize(x, spec), lb.quantize(w, spec)
    got = integer_dot.integer_matmul(qx, qw)
    if ablated and qw.zero is not None:  # Without the data's term.
      sums = jnp.sum(qx.codes.astype(jnp.float32), 1, keepdims=True)
      got = got + qx.scale * qw.scale * qw.zero.astype(jnp.float32) * sums
    a, b = (np.asarray(lb.dequantize(q), np.float64) for q in (qx, qw))
    return float(np.abs(got - a @ b.T).max() / np.abs(a @ b.T).max())

  words = [lb.pack(lb.quantize(a, 'int1@tensor')).words for a in (x, w)]
  dots = integer_dot.xnor_dot(words[0][:, None], words[1][None], x.shape[1])
  signs = lambda a: np.where(np.asarray(a) < 0, -1, 1)
  return {
    'affine': off('int8z@tensor'),
    'symmetric': off('int8@channel'),
    'xnor': float(np.array_equal(dots, signs(x) @ signs(w).T)),
  }


def get_claim():
  return claims.Claim(
    key='gholami_survey',
    title='A Survey of Quantization Methods for Efficient Neural Network '
    'Inference',
    reference='arXiv:2103.13630',
    recipe='quantize.integer_dot; Spec int8z@tensor, int8@channel, int1',
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
