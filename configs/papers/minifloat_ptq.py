"""Minifloats and integers for PTQ, with the cost of their multiply-accumulate.

The embedded decoder's weights at 3 and 4 bits, one scale a channel: KL to the
float model (less noisy than bits per byte, in which all of these are within two
standard errors), by nearest rounding and by GPTQ, which takes any grid. On
tensors: the best exponent width grows with the weight of the tails; and of all
formats of 3 to 8 bits, SNR at the best clip against the look-up tables of a
multiply-accumulate (`analysis.costs.mac_luts`), on Gaussian and on Student-t(3)
data: no integer loses to a cheaper format on the former, minifloats join the
front on the latter.
"""

import jax
import jax.numpy as jnp

import lowbit as lb
from lowbit.analysis import costs
from lowbit.data import embedded, text
from lowbit.experiment import claims, evaluate
from lowbit.models import decoder

SPLITS = {0: 'int8', 2: 'e2m5', 3: 'e3m4finite', 4: 'e4m3finite'}


def candidates(ablated):
  """(exponent bits, grid, LUTs) of all formats of 3 to 8 bits."""
  found = []
  for bits in range(3, 9):
    splits = (0,) if ablated else (0, *range(2, min(bits, 5)))
    for e in splits:
      name = f'e{e}m{bits - 1 - e}finite' if e else f'int{bits}'
      grid = lb.formats.get(name).grid
      found.append((e, grid, costs.mac_luts(e, bits - 1 - e)))
  return found


@jax.jit
def least_error(x, mantissa_bits, min_exponent, max_value):
  """The least mean squared error over clips."""

  def error(clip):
    scale = clip / max_value
    y = lb.formats.round_to_float_grid(
      x / scale, mantissa_bits, min_exponent, max_value
    )
    return jnp.mean((x - y * scale) ** 2)

  return jnp.min(jax.lax.map(error, jnp.geomspace(1.0, 60.0, 60)))


def front(x, ablated):
  """Exponent bits of the formats that none beats at the same or less cost."""
  rows = []
  for e, grid, luts in candidates(ablated):
    numbers = (jnp.int32(grid.mantissa_bits), jnp.int32(grid.min_exponent))
    mse = float(least_error(x, *numbers, jnp.float32(grid.max)))
    rows.append((e, luts, mse))
  return [
    e
    for e, luts, mse in rows
    if not any(cost <= luts and error < mse for _, cost, error in rows)
  ]


def best_split(x, splits):
  """The exponent width whose grid at its best clip errs least."""

  def error(name):
    y = lb.fake_quantize(x, f'{name}@tensor:mse')
    return float(jnp.mean((x - y) ** 2))

  return min(splits, key=lambda e: error(splits[e]))


def decoder_kl(recipes):
  """KL to the float decoder, nats a byte, of each recipe."""
  config, params = embedded.load()
  model = decoder.Decoder(config)
  params = jax.tree.map(lambda p: jnp.asarray(p, jnp.float32), params)
  texts = text.load()
  reference = evaluate.reference(
    model, params, [text.sample(texts, 'test', 16, 256)]
  )
  batches = [text.sample(texts, 'calibration', 8, 256)]

  def kl(recipe):
    q = lb.quantize_model(model, params, recipe, batches)
    return float(evaluate.score(model, q, reference).kl_nats.mean())

  return {name: kl(recipe) for name, recipe in recipes.items()}


def measure(seed, ablated):
  splits = dict.fromkeys(SPLITS, 'int8') if ablated else SPLITS
  keys = jax.random.split(jax.random.key(seed), 3)
  shape = (256, 1024)
  uniform = jax.random.uniform(keys[0], shape, minval=-1, maxval=1)
  heavy = jax.random.t(keys[2], 3.0, shape)
  normal = jax.random.normal(keys[1], shape)
  four, three = ('int4', 'int3') if ablated else ('e2m1', 'e2m0')
  nearest = lambda name: lb.recipes.nearest(f'{name}@channel')
  kl = decoder_kl(
    {
      'int4': nearest('int4'),
      'int3': nearest('int3'),
      'four': nearest(four),
      'three': nearest(three),
      'gptq': lb.recipes.gptq(f'{four}@channel', sequential=False),
    }
  )
  return {
    'uniform': best_split(uniform, splits),
    'normal': best_split(normal, splits),
    'heavy': best_split(heavy, splits),
    'four': kl['four'] / kl['int4'],
    'three': kl['three'] / kl['int3'],
    'gptq': kl['gptq'] / kl['four'],
    'whole': float(front(normal, ablated).count(0)),
    'floats': float(sum(e > 2 for e in front(heavy, ablated))),
  }


def get_claim():
  return claims.Claim(
    key='minifloat_ptq',
    title='Shedding the Bits: Pushing the Boundaries of Quantization with '
    'Minifloats on FPGAs',
    reference='arXiv:2311.12359',
    recipe="recipes.nearest('e2m1@channel'), recipes.gptq('e2m1@channel')",
    says='minifloats beat integers of the same width on weights, the more so '
    'the heavier the tails; GPTQ works on their grid as on integers; for '
    'their logic, integers stay Pareto-optimal on Gaussians',
    published='best E of 8 bits: uniform 0, Gaussian 2, heavier tails more '
    '(anchors)',
    ablation='integers in place of minifloats',
    measure=measure,
    holds=lambda n: (
      n['uniform'] == 0
      and n['normal'] == 2
      and n['heavy'] > 2
      and n['four'] < 0.95
      and n['three'] < 0.9
      and n['gptq'] < 0.7
      and n['whole'] == 6
      and n['floats'] >= 2
    ),
    show='best E {uniform:.0f} / {normal:.0f} / {heavy:.0f}; KL against '
    'integers {four:.2f} (E2M1), {three:.2f} (E2M0); GPTQ {gptq:.2f} of '
    'nearest; on the cost front {whole:.0f} of 6 integers (Gaussian), '
    '{floats:.0f} floats with E > 2 (t(3))',
    seeds=(0,),
  )
