"""MixPE: scale once a group, and multiply by shifting and adding.

Scaling the integer sum of a group equals scaling every weight, with 1 / 128 of
the multiplications (counted in the traced program); INT4 and FP4 times INT8 as
shifts and additions for all pairs; less than two additions a product for INT4.
The ablation scales every weight before the product. Speed and energy of the
simulated hardware are not part of this claim.
"""

import jax
import jax.numpy as jnp
import numpy as np

import lowbit as lb
from lowbit.experiment import claims

GROUP, K, N = 128, 1024, 16


def int4_product(q, x):
  """(q x, additions) for sign-magnitude q in -7..7."""
  total, terms = np.zeros_like(x), np.zeros_like(x)
  for bit in range(3):
    is_set = (np.abs(q) >> bit) & 1
    total, terms = total + is_set * (x << bit), terms + is_set
  return np.where(q < 0, -total, total), np.maximum(terms - 1, 0)


def fp4_product(code, x):
  """2 v x in half units, for the E2M1 code of v: one or two shifts."""
  exponent, fraction = (code >> 1) & 3, code & 1
  # 2 v: 0, 1 below the first exponent; (2 + fraction) << (exponent - 1) above.
  high = np.where(exponent > 0, x << np.maximum(exponent, 1), 0)
  low = np.where(fraction == 1, x << np.maximum(exponent - 1, 0), 0)
  return np.where(code & 8, -(high + low), high + low)


def products_are_exact():
  x = np.arange(-128, 128)
  q, a = np.meshgrid(np.arange(-7, 8), x, indexing='ij')
  product, adds = int4_product(q, a)
  same = (product == q * a).all()
  fmt = lb.formats.get('e2m1')
  codes, a = np.meshgrid(fmt.codes().astype(int), x, indexing='ij')
  value = np.asarray(fmt.decode(codes.astype(np.uint8)))
  same &= (fp4_product(codes, a) == 2 * value * a).all()
  return float(same), float(adds.mean())


def after(x, codes, zero, scale):
  """One multiplication a group: scales behind the integer sums."""
  groups = K // GROUP
  x = x.reshape(-1, groups, GROUP)
  codes = codes.reshape(groups, GROUP, N)
  sums = jnp.einsum('mgk,gkn->mgn', x, codes)
  shift = jnp.einsum('mg,gn->mgn', jnp.sum(x, axis=2), zero)
  return jnp.sum((sums - shift).astype(jnp.float32) * scale[None], axis=1)


def before(x, codes, zero, scale):
  """One multiplication a weight: scales in front of the product."""
  wide = lambda a: jnp.repeat(a, GROUP, axis=0)
  w = (codes - wide(zero)).astype(jnp.float32) * wide(scale)
  return x.astype(jnp.float32) @ w


def scalings(function, *args):
  """Elementwise float multiplications of the traced program, an output."""
  eqns = jax.make_jaxpr(function)(*args).jaxpr.eqns
  outs = [e.outvars[0].aval for e in eqns if e.primitive.name == 'mul']
  return sum(a.size for a in outs if a.dtype == jnp.float32) / N


def measure(seed, ablated):
  rng = np.random.default_rng(seed)
  x = jnp.asarray(rng.integers(-127, 128, (1, K)), jnp.int32)
  codes = jnp.asarray(rng.integers(0, 16, (K, N)), jnp.int32)
  zero = jnp.asarray(rng.integers(0, 16, (K // GROUP, N)), jnp.int32)
  scale = jnp.asarray(rng.uniform(0.5, 2, (K // GROUP, N)), jnp.float32)
  args = x, codes, zero, scale
  chosen = before if ablated else after
  wide = lambda a: np.repeat(np.asarray(a, np.float64), GROUP, axis=0)
  want = np.asarray(x) @ ((np.asarray(codes) - wide(zero)) * wide(scale))
  got = chosen(*args)
  exact, adds = products_are_exact()
  ones = jnp.ones_like(scale)
  whole = jnp.array_equal(after(*args[:3], ones), before(*args[:3], ones))
  return {
    'exact': exact * float(whole),
    'error': float(np.max(np.abs(got - want)) / np.max(np.abs(want))),
    'adds': adds,
    'scalings': scalings(chosen, *args),
  }


def get_claim():
  return claims.Claim(
    key='mixpe',
    title='MixPE: Quantization and Hardware Co-design for Efficient LLM '
    'Inference',
    reference='arXiv:2411.16158',
    recipe='kernels.int_matmul',
    says='scaling sums of groups instead of weights takes 128 times fewer '
    'multiplications; products are shifts and additions',
    published='K / 128 scalings an output; all pairs of codes exact',
    ablation='scales in front of the product',
    measure=measure,
    holds=lambda n: (
      n['exact'] == 1
      and n['error'] < 1e-6
      and n['adds'] <= 2
      and n['scalings'] == K / GROUP
    ),
    show='{scalings:.0f} scalings an output for K = 1024; error {error:.0e}; '
    '{adds:.2f} additions an INT4 product',
  )
