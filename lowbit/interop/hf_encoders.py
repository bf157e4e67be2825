"""Encoders in Hugging Face's layout: BERT, MiniLM and other BERTs by name."""

import jax
import jax.numpy as jnp

from lowbit.interop import hugging_face, layout
from lowbit.models import encoder

_DENSE = {
  'attention.self.query': 'query',
  'attention.self.key': 'key',
  'attention.self.value': 'value',
  'attention.output.dense': 'out',
  'intermediate.dense': 'up',
  'output.dense': 'down',
}
_NORMS = {
  'attention.output.LayerNorm': 'attention_norm',
  'output.LayerNorm': 'mlp_norm',
}
_TABLES = {
  'word_embeddings': 'embed',
  'position_embeddings': 'positions',
  'token_type_embeddings': 'types',
}


def load(folder: hugging_face.Folder) -> tuple[encoder.Encoder, dict]:
  """The encoder and its float32 params; heads for tasks are left out.

  Raises:
    ValueError: If config.json lacks sizes, asks for what the encoder lacks, or
      does not fit the tensors; before tensors are read.
  """
  model = encoder.Encoder(config(folder))
  prefix = 'bert.' if any(n.startswith('bert.') for n in folder.shapes) else ''
  return model, layout.assemble(
    folder.checkpoint,
    model,
    (jax.ShapeDtypeStruct((1, 2), jnp.int32),),
    sources(model.config, prefix),
    ignored=r'.*position_ids|(bert\.)?pooler\..*|cls\..*|classifier\..*',
  )


def config(folder: hugging_face.Folder) -> encoder.EncoderConfig:
  """The sizes of the encoder."""
  folder.expect('model_type', 'bert')
  folder.expect('hidden_act', 'gelu', default='gelu')
  folder.expect('position_embedding_type', 'absolute', None)
  return encoder.EncoderConfig(
    vocab=folder.number('vocab_size'),
    width=folder.number('hidden_size'),
    layers=folder.layers(),
    heads=folder.number('num_attention_heads'),
    hidden=folder.number('intermediate_size'),
    positions=folder.number('max_position_embeddings'),
    types=folder.number('type_vocab_size', 2),
    norm_eps=folder.number('layer_norm_eps', 1e-12),
  )


def sources(
  c: encoder.EncoderConfig, prefix: str = ''
) -> dict[str, layout.Source]:
  """The layout of the encoder in Hugging Face's names."""
  at = f'{prefix}embeddings'
  found = {
    f'{ours}/embedding': layout.Source(f'{at}.{name}.weight')
    for name, ours in _TABLES.items()
  }
  found |= layout.norm(f'{at}.LayerNorm', 'embed_norm')
  for i in range(c.layers):
    theirs, ours = f'{prefix}encoder.layer.{i}', f'layers_{i}'
    for name, mine in _NORMS.items():
      found |= layout.norm(f'{theirs}.{name}', f'{ours}/{mine}')
    for name, mine in _DENSE.items():
      found |= layout.dense(f'{theirs}.{name}', f'{ours}/{mine}')
  return found
