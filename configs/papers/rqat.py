"""Stuck bits: snapping to what a cell can hold, against being overwritten.

4-bit weights on devices whose bits are stuck with a rate of 10 and 20 %: the
error of the nearest value that each cell can hold, against rounding first and
letting the faults overwrite it. The ablation does the latter. Training with the
penalty is not part of this claim.
"""

import jax
import jax.numpy as jnp

import lowbit as lb
from lowbit.analysis import stuck
from lowbit.experiment import claims

BITS = 4


def measure(seed, ablated):
  keys = jax.random.split(jax.random.key(seed), 3)
  w = jax.random.normal(keys[0], (256, 256))
  scale = lb.quantize.scales_of(lb.quantize(w, 'int4@channel'))
  x = w / scale
  plain = jnp.clip(jnp.rint(x), -8, 7)
  error = lambda y: float(jnp.mean((y - x) ** 2))
  numbers = {'clean': error(plain)}
  for rate, key in ((10, keys[1]), (20, keys[2])):
    faults = stuck.draw(w.shape, BITS, rate / 100, key)
    naive = stuck.apply_faults(plain, faults, BITS).astype(jnp.float32)
    snapped = naive if ablated else stuck.snap(x, faults, BITS)
    held = stuck.apply_faults(snapped, faults, BITS)
    numbers[f'gain{rate}'] = error(naive) / error(snapped)
    numbers[f'held{rate}'] = float(jnp.all(held.astype(jnp.float32) == snapped))
  return numbers


def get_claim():
  return claims.Claim(
    key='rqat',
    title='Regularization-based Framework for Quantization-, Fault- and '
    'Variability-Aware Training',
    reference='arXiv:2503.01297',
    recipe='analysis.stuck',
    says='weights that know which values their cells can hold lose less to '
    'stuck bits',
    published='snapping errs less than faults on rounded weights (computed '
    'over all codes)',
    ablation='faults overwrite rounded weights',
    measure=measure,
    holds=lambda n: (
      n['gain10'] > 3 and n['gain20'] > 3 and n['held10'] == n['held20'] == 1
    ),
    show='error {gain10:.1f} x lower at 10 %, {gain20:.1f} x at 20 %',
  )
