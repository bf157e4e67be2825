"""README's examples run as they are printed, on a small decoder."""

import pathlib
import re

import jax
import jax.numpy as jnp

from lowbit.models import decoder

README = pathlib.Path(__file__).resolve().parent.parent / 'README.md'
SMALL = decoder.DecoderConfig(
  width=64, layers=1, heads=2, kv_heads=1, head_dim=32, hidden=64
)


def test_the_examples_run(capsys):
  blocks = re.findall(r'```python\n(.*?)```', README.read_text(), re.DOTALL)
  model = decoder.Decoder(SMALL)
  tokens = jnp.arange(64).reshape(2, 32)
  params = model.init(jax.random.key(0), tokens)['params']
  names = {
    'model': model,
    'params': params,
    'float_params': params,
    'tokens': tokens,
    'batches': [tokens],
  }
  for block in blocks:
    exec(block, names)
  assert 'nvfp4 4.5' in capsys.readouterr().out
  assert names['logits'].shape == (2, 32, 256)
  assert names['many'].shape == (3, 256, 512)
