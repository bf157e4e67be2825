"""FP8: the best number of exponent bits grows with the weight of the tails.

All codes finite, clip at the least mean squared error; -10 log10 MSE by
integration over the density of each distribution: uniform on [-1, 1], N(0, 1),
Student-t with 8 degrees of freedom cut at 100, and N(0, 1) with one per cent of
values 50 times larger, which has no published number. The ablation holds the
exponent at 4 bits for every float.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

import lowbit as lb
from lowbit.experiment import claims

# Index + 1 is the number of exponent bits, of the floats.
FORMATS = ('int8', 'e2m5', 'e3m4finite', 'e4m3finite', 'e5m2finite')
POINTS, CLIPS = 100_001, 100
# Computed independently by exact integration, in the order of FORMATS.
WANT = {
  'uniform': (52.90, 49.26, 43.26, 37.18, 31.05),
  'normal': (40.57, 42.67, 37.56, 31.56, 25.58),
  'heavy': (33.16, 37.18, 36.27, 30.29, 24.31),
}


def distributions(shift):
  """name -> (points, weights, smallest clip, largest clip)."""
  u = (np.arange(POINTS) + shift) / POINTS
  uniform = 2 * u - 1
  tails = np.sinh(np.arcsinh(100.0) * uniform)  # Dense around 0.
  normal = stats.norm.pdf(tails)
  loud = 0.99 * normal + 0.01 * stats.norm.pdf(tails / 50) / 50
  step = np.cosh(np.arcsinh(100.0) * uniform)
  return {
    'uniform': (uniform, np.ones(POINTS), 0.8, 1.2),
    'normal': (tails, normal * step, 3.0, 12.0),
    'heavy': (tails, stats.t.pdf(tails, 8) * step, 4.0, 100.0),
    'outliers': (tails, loud * step, 4.0, 120.0),
  }


@functools.partial(jax.jit, static_argnums=(2, 3))
def least_error(x, weights, low, high, grid):
  """The least mean squared error over clips in [low, high]."""
  mantissa_bits, min_exponent, max_value = grid

  def error(clip):
    scale = clip / max_value
    y = lb.formats.round_to_float_grid(
      x / scale, mantissa_bits, min_exponent, max_value
    )
    return jnp.sum(weights * (x - y * scale) ** 2)

  return jnp.min(jax.lax.map(error, jnp.geomspace(low, high, CLIPS)))


def scores(x, weights, low, high, ablated):
  """-10 log10 MSE of each format at its best clip."""
  weights = jnp.asarray(weights / weights.sum(), jnp.float32)
  found = []
  for name in FORMATS:
    held = ablated and name != 'int8'
    grid = lb.formats.get('e4m3finite' if held else name).grid
    numbers = (
      jnp.int32(grid.mantissa_bits),
      jnp.int32(grid.min_exponent),
      jnp.float32(grid.max),
    )
    mse = least_error(jnp.asarray(x, jnp.float32), weights, low, high, numbers)
    found.append(-10 * float(jnp.log10(mse)))
  return found


def measure(seed, ablated):
  every = distributions((seed + 1) / 4)
  found = {k: scores(*v, ablated) for k, v in every.items()}
  off = [
    abs(a - b) for k in WANT for a, b in zip(found[k], WANT[k], strict=True)
  ]
  best = {k: float(np.argmax(v)) for k, v in found.items()}
  return {
    'off': max(off),
    'e2m5': found['normal'][1],
    'int8': found['normal'][0],
    'e2m5_heavy': found['heavy'][1],
    'int8_heavy': found['heavy'][0],
    'bits': best['outliers'] + 1,
    **best,
  }


def get_claim():
  return claims.Claim(
    key='fp8_exponent',
    title='FP8 Quantization: The Power of the Exponent',
    reference='arXiv:2208.09225',
    recipe='formats e2m5, e3m4finite, e4m3finite, e5m2finite, int8',
    says='uniform data want INT8, Gaussians 2 exponent bits, outliers more',
    published='15 anchors, +-0.1 here: Gaussian 42.67 dB (E2M5), 40.57 (INT8); '
    't(8) 37.18, 33.16; uniform 52.90 (INT8)',
    ablation='one exponent split (E4M3) for all floats',
    measure=measure,
    holds=lambda n: (
      n['off'] < 0.1
      and (n['uniform'], n['normal'], n['heavy']) == (0, 1, 1)
      and n['bits'] > 2
    ),
    show='Gaussian {e2m5:.2f}, {int8:.2f}; t(8) {e2m5_heavy:.2f}, '
    '{int8_heavy:.2f}; worst of 15 off by {off:.3f}; with outliers '
    '{bits:.0f} exponent bits are best',
    seeds=(0, 1),
  )
