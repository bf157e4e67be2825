"""DeepGEMM: products of 2-bit codes are looked up, so levels may be any.

Sums over a table of 16 products equal the product of the levels: whole numbers
exactly, learned (k-means) levels in float. 2-bit codes index 16 entries, one
register of bytes, 3-bit ones 64. The ablation multiplies as integers do, by
equal steps, with the best step for the same numbers. Speed is not measured.
"""

import jax.numpy as jnp
import numpy as np

from lowbit.experiment import claims
from lowbit.kernels import lut_matmul as lut
from lowbit.quantize import packing


def levels_of(x):
  """Four levels of x by Lloyd's algorithm, ascending."""
  levels = np.quantile(x, [0.125, 0.375, 0.625, 0.875])
  for _ in range(50):
    code = np.abs(x[:, None] - levels).argmin(1)
    levels = np.array([x[code == i].mean() for i in np.unique(code)])
  return levels


def even(levels):
  """The equal steps that are nearest to the levels."""
  slope, start = np.polyfit(np.arange(4), levels, 1)
  return start + slope * np.arange(4)


def table_of(w_levels, a_levels):
  return tuple(float(v) for v in np.outer(w_levels, a_levels).reshape(-1))


def measure(seed, ablated):
  rng = np.random.default_rng(seed)
  # Learned levels: heavy-tailed weights, activations of one sign.
  w_levels = levels_of(rng.standard_t(4, 4096))
  a_levels = levels_of(rng.normal(size=4096) ** 2)
  a = rng.integers(0, 4, (16, 640)).astype(np.uint8)
  w = rng.integers(0, 4, (640, 32)).astype(np.uint8)
  words = packing.pack_codes(jnp.asarray(w.T), 2).T
  look_up = lambda table: np.asarray(
    lut.lut_gemm_2bit(jnp.asarray(a), words, table)
  )
  want = a_levels[a] @ w_levels[w]
  used = (even(w_levels), even(a_levels)) if ablated else (w_levels, a_levels)
  got = look_up(table_of(*used))
  whole = look_up(table_of(np.arange(4) - 2, np.arange(4)))
  exact = (whole == a.astype(int) @ (w.astype(int) - 2)).all()
  return {
    'error': float(np.sqrt(np.mean((got - want) ** 2) / np.var(want))),
    'exact': float(exact),
    'entries2': 2.0 ** (2 + 2),
    'entries3': 2.0 ** (3 + 3),
    'steps': 127 // 9,
  }


def get_claim():
  return claims.Claim(
    key='deepgemm_lut',
    title='DeepGEMM: Accelerated Ultra Low-Precision Inference on CPU '
    'Architectures using Lookup Tables',
    reference='arXiv:2304.09049',
    recipe='kernels.lut_matmul.lut_gemm_2bit',
    says='one lookup in 16 products replaces the multiplication of 2-bit '
    'codes, at any levels',
    published='exact; tables of 16 entries (speed is not measured here)',
    ablation='equal steps nearest to the levels, as integers have them',
    measure=measure,
    holds=lambda n: n['exact'] == 1 and n['error'] < 1e-5,
    show='relative error {error:.0e} of learned levels; {entries2:.0f} entries '
    'at 2 bits, {entries3:.0f} at 3; int8 sums of {steps:.0f} products',
  )
