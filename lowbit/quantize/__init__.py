"""How a tensor maps onto a format: specs, scales, QTensor, packing."""

import jax

from lowbit import packages
from lowbit.formats import base
from lowbit.quantize.bit_attention import BitAttention
from lowbit.quantize.blocking import Blocks
from lowbit.quantize.estimators import (
  Estimator,
  Staircase,
  Stochastic,
  clipped,
  fake_quantize,
  forward_spec,
  soft_round,
  straight_through,
)
from lowbit.quantize.grid import quantize_grid
from lowbit.quantize.held import Delayed, Static
from lowbit.quantize.learned import Dorefa, Elastic, Learned, Lsq, Pact, Pams
from lowbit.quantize.learned_offset import LsqPlus
from lowbit.quantize.packing import PackedQTensor, bits, pack, unpack
from lowbit.quantize.qtensor import (
  QTensor,
  check_float,
  dequantize,
  quantize,
  quantize_with,
  scales_of,
  transpose,
  wide_scales,
  wide_two_sided,
)
from lowbit.quantize.scales import (
  Absmax,
  Density,
  Entropy,
  Mse,
  Percentile,
  PowerOfTwo,
  Unit,
)
from lowbit.quantize.schedule import Progressive, Ramp
from lowbit.quantize.spec import SHORTHANDS, Spec
from lowbit.quantize.token_bits import TokenBits
from lowbit.quantize.traced_fixed import TracedFixed

base.lax = jax.lax  # Formats import NumPy alone, and round JAX arrays as well.

__all__ = [
  'SHORTHANDS',
  'Absmax',
  'BitAttention',
  'Blocks',
  'Delayed',
  'Density',
  'Dorefa',
  'Elastic',
  'Entropy',
  'Estimator',
  'Learned',
  'Lsq',
  'LsqPlus',
  'Mse',
  'PackedQTensor',
  'Pact',
  'Pams',
  'Percentile',
  'PowerOfTwo',
  'Progressive',
  'QTensor',
  'Ramp',
  'Spec',
  'Staircase',
  'Static',
  'Stochastic',
  'TokenBits',
  'TracedFixed',
  'Unit',
  'bits',
  'check_float',
  'clipped',
  'dequantize',
  'fake_quantize',
  'forward_spec',
  'pack',
  'quantize',
  'quantize_grid',
  'quantize_with',
  'scales_of',
  'soft_round',
  'straight_through',
  'transpose',
  'unpack',
  'wide_scales',
  'wide_two_sided',
]

packages.make_callable(__name__, quantize)
