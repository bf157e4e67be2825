"""LUT Tensor Core: odd tables need half their entries.

Codes re-mapped to sums of signs: the same numbers for every code of 1 to 4
bits. Tables of 8 entries and a sign give the product for weights of 1, 2 and 4
bits. One table serves all N outputs; built for every tile of 64 outputs, it
would be built N / 64 times. The ablation negates, but leaves the other bits of
the index as they are. Silicon area, power and speed are not part of this claim.
"""

import jax
import jax.numpy as jnp
import numpy as np

import lowbit as lb
from lowbit.experiment import claims
from lowbit.kernels import lut_matmul as lut
from lowbit.kernels.lut_matmul import layout

N = 512


def remapping_is_exact():
  same = True
  for bits in (1, 2, 3, 4):
    u = np.arange(2**bits)
    for zero in (0, 2 ** (bits - 1), 2**bits - 1):
      mapped = 2 * u - (2**bits - 1) - (2 * zero + 1 - 2**bits)
      same &= (mapped / 2 == u - zero).all()
  return float(same)


def keep_bits(words):
  """Indices whose low bits were not flipped where the sign is set."""

  def undo(nibble):
    return jnp.where(nibble >= 8, nibble ^ 7, nibble)

  return (undo(words & 15) | (undo(words >> 4) << 4)).astype(jnp.uint8)


def measure(seed, ablated):
  keys = jax.random.split(jax.random.key(seed), 2)
  x = jax.random.normal(keys[0], (4, 512))
  latent = jax.random.normal(keys[1], (512, N))
  errors = []
  for name in ('int1@channel', 'int2@channel', 'int4z@g128'):
    q = lb.quantize(latent, name, axis=-2)
    w = lut.lut_weight(q)
    if ablated:
      w = layout.LutWeight(keep_bits(w.words), w.scale, w.offset, w.size)
    want = jnp.matmul(x, lb.dequantize(q), precision='highest')
    got = lut.lut_matmul(x, w)
    errors.append(float(jnp.max(jnp.abs(got - want)) / jnp.std(want)))
  return {
    'remap': remapping_is_exact(),
    'error': max(errors),
    'entries': layout.tables(x).shape[2],
    'builds': N / 64,
  }


def get_claim():
  return claims.Claim(
    key='lut_tensor_core',
    title='LUT Tensor Core: Lookup Table Enables Efficient Low-Bit LLM '
    'Inference Acceleration',
    reference='arXiv:2408.06003',
    recipe='kernels.lut_matmul',
    says='re-mapped weights make tables odd: half the entries give the product',
    published='8 entries in place of 16 for four activations, exact',
    ablation='the low bits of negated indices are not flipped',
    measure=measure,
    holds=lambda n: n['remap'] == 1 and n['error'] < 1e-4 and n['entries'] == 8,
    show='{entries:.0f} entries; largest error {error:.0e}; one table instead '
    'of {builds:.0f} for 512 columns in tiles of 64',
  )
