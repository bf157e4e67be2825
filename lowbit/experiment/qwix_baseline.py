"""qwix (PyPI, extra `bench`) on the formats that it shares with lowbit."""

import functools
import importlib.util
from collections.abc import Callable

import jax
import jax.numpy as jnp

# Spec -> (qtype, group) as qwix 0.1.8 names them; None for a channel.
SHARED = {
  'int8@channel': (jnp.int8, None),
  'int4@channel': (jnp.int4, None),
  'int4@g128': (jnp.int4, 128),
  'e4m3@channel': (jnp.float8_e4m3fn, None),
  'mxfp8_e4m3': ('mxfp8', 32),
  'mxfp4': ('mxfp4', 32),
  'nvfp4': ('nvfp4', 16),
  'nf4@g64': ('nf4', 64),
}
STOCHASTIC = '~stochastic'
# Case of `training_steps` -> fields of qwix's rule.
TRAINED = {
  'w8a8': {'weight_qtype': jnp.int8, 'act_qtype': jnp.int8},
  'w4a8': {'weight_qtype': jnp.int4, 'act_qtype': jnp.int8},
  'mxfp4': {'weight_qtype': 'mxfp4', 'act_qtype': 'mxfp4', 'tile_size': 32},
}


def is_installed() -> bool:
  """Whether qwix can be imported."""
  return importlib.util.find_spec('qwix') is not None


def codec(spec: str) -> tuple[Callable, Callable] | None:
  """(encode, decode) of a matrix whose last axis is contracted.

  `encode(x, key)` uses a key for stochastic rounding, which qwix has for
  integers, with noise for each element as lowbit has it. None where qwix has
  no such format.
  """
  name = spec.removesuffix(STOCHASTIC)
  is_stochastic = name != spec
  if name not in SHARED or (is_stochastic and not name.startswith('int')):
    return None
  from qwix._src.core import qarray, stochastic_rounding

  qtype, group = SHARED[name]

  def encode(x, key=None):
    noise = None
    if is_stochastic:
      noise = stochastic_rounding.get_noise_fn('uniform', key, (0, 1))
    how = qarray.HowToQuantize(
      qtype=qtype,
      channelwise_axes=(0,),
      tiled_axes={} if group is None else {1: group},
      noise_fn=noise,
    )
    return qarray.quantize(x, how)

  return encode, qarray.dequantize


def fake(spec: str) -> Callable | None:
  """Both at once, with a straight-through gradient, or None."""
  pair = codec(spec)
  return pair and functools.partial(_fake, *pair)


def _fake(encode, decode, x, key):
  return x + jax.lax.stop_gradient(decode(encode(x, key)) - x)


def trained(model, case: str):
  """A Linen model whose Dense layers qwix quantizes, gradients in float."""
  import qwix

  layers = 'query|key|value|out|gate|up|down|head'
  rule = qwix.QtRule(module_path=f'(.*/)?({layers})', **TRAINED[case])
  return qwix.quantize_model(model, qwix.QtProvider([rule]))
