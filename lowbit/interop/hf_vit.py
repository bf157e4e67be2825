"""Vision transformers in Hugging Face's layout."""

import jax
import jax.numpy as jnp

from lowbit.interop import hugging_face, layout
from lowbit.models import vit

_DENSE = {
  'attention.attention.query': 'query',
  'attention.attention.key': 'key',
  'attention.attention.value': 'value',
  'attention.output.dense': 'out',
  'intermediate.dense': 'up',
  'output.dense': 'down',
}
_NORMS = {
  'layernorm_before': 'attention_norm',
  'layernorm_after': 'mlp_norm',
}
_HEAD = 'classifier.weight'


def load(folder: hugging_face.Folder) -> tuple[vit.ViT, dict]:
  """The model and its float32 params; without a classifier, it has no head.

  Images are [B, height, width, channels], scaled as preprocessor_config.json
  says.

  Raises:
    ValueError: If config.json lacks sizes, asks for what the model lacks, or
      does not fit the tensors; before tensors are read.
  """
  c = config(folder)
  prefix = 'vit.' if any(n.startswith('vit.') for n in folder.shapes) else ''
  model = vit.ViT(c)
  images = jax.ShapeDtypeStruct((1, *c.image, c.channels), jnp.float32)
  return model, layout.assemble(
    folder.checkpoint,
    model,
    (images,),
    sources(c, prefix),
    ignored=r'(vit\.)?(pooler\..*|embeddings\.mask_token)',
  )


def config(folder: hugging_face.Folder) -> vit.ViTConfig:
  """The sizes of the model, from config.json and the head's tensor."""
  folder.expect('model_type', 'vit')
  folder.expect('hidden_act', 'gelu', default='gelu')
  return vit.ViTConfig(
    image=_pair(folder, 'image_size'),
    patch=_pair(folder, 'patch_size'),
    channels=folder.number('num_channels', 3),
    width=folder.number('hidden_size'),
    layers=folder.layers(),
    heads=folder.number('num_attention_heads'),
    hidden=folder.number('intermediate_size'),
    classes=folder.shapes.get(_HEAD, (0,))[0],
    norm_eps=folder.number('layer_norm_eps', 1e-12),
    qkv_bias=bool(folder.config.get('qkv_bias', True)),
  )


def _pair(folder, key: str) -> tuple[int, int]:
  """(height, width) of one number, or a list of two."""
  value = folder.config.get(key)
  if not isinstance(value, list):
    return (folder.number(key),) * 2
  if len(value) != 2:
    raise ValueError(
      f'{key} in config.json of `path` {folder.path} must be a number, or two; '
      f'got {value!r}.'
    )
  return tuple(folder.number(key, of={key: n}) for n in value)


def sources(c: vit.ViTConfig, prefix: str = '') -> dict[str, layout.Source]:
  """The layout of the model in Hugging Face's names."""
  at = f'{prefix}embeddings'
  patches = f'{at}.patch_embeddings.projection'
  found = {
    'class_token': layout.Source(f'{at}.cls_token'),
    'positions': layout.Source(f'{at}.position_embeddings'),
    'patches/kernel': layout.patches(f'{patches}.weight'),
    'patches/bias': layout.Source(f'{patches}.bias'),
    **layout.norm(f'{prefix}layernorm', 'final_norm'),
  }
  if c.classes:
    found |= layout.dense('classifier', 'head')
  for i in range(c.layers):
    theirs, ours = f'{prefix}encoder.layer.{i}', f'layers_{i}'
    for name, mine in _NORMS.items():
      found |= layout.norm(f'{theirs}.{name}', f'{ours}/{mine}')
    for name, mine in _DENSE.items():
      biased = c.qkv_bias or mine not in ('query', 'key', 'value')
      found |= layout.dense(f'{theirs}.{name}', f'{ours}/{mine}', biased)
  return found
