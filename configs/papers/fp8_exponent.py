"""FP8: the best number of exponent bits grows with the weight of the tails.

All codes finite, clip at the least mean squared error; -10 log10 MSE by exact
quantiles of each distribution. Computed by exact integration: uniform, INT8
52.90 is best; N(0, 1), E2M5 42.67 before INT8 40.57; Student-t with 8 degrees,
E3M4 37.18 or so before INT8 33.16.
"""

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

import lowbit as lb
from lowbit.experiment import claims

FORMATS = ('int8', 'e2m5', 'e3m4finite', 'e4m3finite', 'e5m2finite')
SAMPLES = 100_001


@jax.jit
def least_error(x, mantissa_bits, min_exponent, max_value):
  """The least mean squared error over clips; one program for all formats."""

  def error(ratio):
    scale = ratio * jnp.max(jnp.abs(x)) / max_value
    y = lb.formats.round_to_float_grid(
      x / scale, mantissa_bits, min_exponent, max_value
    )
    return jnp.mean((x - y * scale) ** 2)

  return jnp.min(jax.lax.map(error, jnp.linspace(0.02, 1.2, 119)))


def best(x, ablated):
  """-10 log10 MSE of each format at its best clip."""
  scores = {}
  for name in FORMATS:
    # The ablation holds the exponent fixed: every float is E4M3.
    name_used = 'e4m3finite' if ablated and name != 'int8' else name
    grid = lb.formats.get(name_used).grid
    mse = least_error(
      x,
      jnp.int32(grid.mantissa_bits),
      jnp.int32(grid.min_exponent),
      jnp.float32(grid.max),
    )
    scores[name] = -10 * float(jnp.log10(mse))
  return scores


def measure(seed, ablated):
  p = (np.arange(SAMPLES) + (seed + 1) / 4) / SAMPLES  # Stratified quantiles.
  as_jax = lambda v: jnp.asarray(np.clip(v, -100, 100), jnp.float32)
  uniform = best(as_jax(2 * p - 1), ablated)
  normal = best(as_jax(stats.norm.ppf(p)), ablated)
  heavy = best(as_jax(stats.t.ppf(p, 8)), ablated)
  winner = lambda s: float(FORMATS.index(max(s, key=s.get)))
  return {
    'uniform': winner(uniform),
    'normal': winner(normal),
    'heavy': winner(heavy),
    'int8': normal['int8'],
    'e2m5': normal['e2m5'],
    'int8_heavy': heavy['int8'],
    'e3m4_heavy': heavy['e3m4finite'],
  }


def get_claim():
  return claims.Claim(
    key='fp8_exponent',
    title='FP8 Quantization: The Power of the Exponent',
    reference='arXiv:2208.09225',
    recipe='formats e2m5, e3m4finite, e4m3finite, int8',
    says='uniform data wants INT8, Gaussian data 2 exponent bits, heavy tails '
    'floats before integers',
    published='Gaussian 42.67 dB (E2M5) against 40.57 (INT8), +-0.15 here; '
    'uniform INT8 best',
    ablation='one exponent split (E4M3) for all floats',
    measure=measure,
    holds=lambda n: (
      n['uniform'] == 0
      and n['normal'] == 1
      and n['heavy'] >= 1
      and abs(n['e2m5'] - 42.67) < 0.15
      and abs(n['int8'] - 40.57) < 0.15
    ),
    show='Gaussian {e2m5:.2f} (E2M5), {int8:.2f} (INT8); t(8) '
    '{e3m4_heavy:.2f} (E3M4), {int8_heavy:.2f} (INT8)',
    seeds=(0, 1),
  )
