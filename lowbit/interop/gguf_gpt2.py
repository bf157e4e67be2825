"""GPT-2 in GGUF files."""

import jax
import jax.numpy as jnp

from lowbit.interop import gguf_file, layout
from lowbit.models import gpt2

_NORMS = {'attn_norm': 'attention_norm', 'ffn_norm': 'mlp_norm'}
_DENSE = {'attn_output': 'out', 'ffn_up': 'up', 'ffn_down': 'down'}


def load(file: gguf_file.GgufFile) -> tuple[gpt2.GPT2, dict]:
  """The model and its float32 params.

  Raises:
    ValueError: If metadata are missing or of another kind, or do not fit the
      tensors; before tensors are read.
  """
  model = gpt2.GPT2(config(file))
  return model, layout.assemble(
    file,
    model,
    (jax.ShapeDtypeStruct((1, 1), jnp.int32),),
    sources(model.config),
  )


def config(file: gguf_file.GgufFile) -> gpt2.GPT2Config:
  """The sizes of the model, from metadata and the shapes of tables."""
  file.expect('general.architecture', 'gpt2')
  return gpt2.GPT2Config(
    vocab=file.shape('token_embd.weight', 2)[0],
    width=file.number('embedding_length'),
    layers=file.blocks(),
    heads=file.number('attention.head_count'),
    hidden=file.number('feed_forward_length'),
    positions=file.shape('position_embd.weight', 2)[0],
    norm_eps=file.number('attention.layer_norm_epsilon', 0.0),
    tied='output.weight' not in file.shapes,
  )


def sources(c: gpt2.GPT2Config) -> dict[str, layout.Source]:
  """The layout of the model in GGUF's names."""
  found = {
    'embed/embedding': layout.Source('token_embd.weight'),
    'positions/embedding': layout.Source('position_embd.weight'),
    **layout.norm('output_norm', 'final_norm'),
  }
  if not c.tied:
    found['head/kernel'] = layout.kernel('output.weight')
  for i in range(c.layers):
    theirs, ours = f'blk.{i}', f'layers_{i}'
    for name, mine in _NORMS.items():
      found |= layout.norm(f'{theirs}.{name}', f'{ours}/{mine}')
    for name, mine in _DENSE.items():
      found |= layout.dense(f'{theirs}.{name}', f'{ours}/{mine}')
    found |= layout.fused(
      f'{theirs}.attn_qkv', [f'{ours}/{n}' for n in ('query', 'key', 'value')]
    )
  return found
