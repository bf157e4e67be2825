"""Encoders in GGUF files: BERT, MiniLM and other BERTs by name."""

import jax
import jax.numpy as jnp

from lowbit.interop import gguf_file, layout
from lowbit.models import encoder

_TABLES = {
  'token_embd': 'embed',
  'position_embd': 'positions',
  'token_types': 'types',
}
_NORMS = {
  'attn_output_norm': 'attention_norm',
  'layer_output_norm': 'mlp_norm',
}
_DENSE = {'attn_output': 'out', 'ffn_up': 'up', 'ffn_down': 'down'}
_HEADS = {'attn_q': 'query', 'attn_k': 'key', 'attn_v': 'value'}


def load(file: gguf_file.GgufFile) -> tuple[encoder.Encoder, dict]:
  """The encoder and its float32 params; heads for tasks are left out.

  GELU is by erf, as BERT was trained; llama.cpp takes its tanh form.

  Raises:
    ValueError: If metadata are missing or of another kind, or do not fit the
      tensors; before tensors are read.
  """
  c = config(file)
  model = encoder.Encoder(c)
  return model, layout.assemble(
    file,
    model,
    (jax.ShapeDtypeStruct((1, 2), jnp.int32),),
    sources(c, fused='blk.0.attn_qkv.weight' in file.shapes),
    ignored=r'cls(\.output)?\.(weight|bias)',
  )


def config(file: gguf_file.GgufFile) -> encoder.EncoderConfig:
  """The sizes of the encoder, from metadata and the shapes of tables."""
  file.expect('general.architecture', 'bert')
  file.expect('bert.attention.causal', False, None)
  rows = lambda name: file.shape(f'{name}.weight', 2)[0]
  return encoder.EncoderConfig(
    vocab=rows('token_embd'),
    width=file.number('embedding_length'),
    layers=file.blocks(),
    heads=file.number('attention.head_count'),
    hidden=file.number('feed_forward_length'),
    positions=rows('position_embd'),
    types=rows('token_types'),
    norm_eps=file.number('attention.layer_norm_epsilon', 0.0),
  )


def sources(
  c: encoder.EncoderConfig, fused: bool = False
) -> dict[str, layout.Source]:
  """The layout of the encoder in GGUF's names.

  Args:
    c: Its sizes.
    fused: Whether queries, keys and values lie in one tensor, attn_qkv.
  """
  found = {
    f'{ours}/embedding': layout.Source(f'{name}.weight')
    for name, ours in _TABLES.items()
  }
  found |= layout.norm('token_embd_norm', 'embed_norm')
  for i in range(c.layers):
    theirs, ours = f'blk.{i}', f'layers_{i}'
    for name, mine in _NORMS.items():
      found |= layout.norm(f'{theirs}.{name}', f'{ours}/{mine}')
    for name, mine in (_DENSE | ({} if fused else _HEADS)).items():
      found |= layout.dense(f'{theirs}.{name}', f'{ours}/{mine}')
    if fused:
      heads = [f'{ours}/{mine}' for mine in _HEADS.values()]
      found |= layout.fused(f'{theirs}.attn_qkv', heads)
  return found
