"""Decoders in Hugging Face's layout: Llama, Mistral, SmolLM2, Qwen2, Qwen3."""

import jax
import jax.numpy as jnp

from lowbit.interop import hugging_face, layout, rope_scaling
from lowbit.models import decoder

KINDS = ('llama', 'mistral', 'qwen2', 'qwen3')
_MATRICES = {
  'self_attn.q_proj': 'attention/query',
  'self_attn.k_proj': 'attention/key',
  'self_attn.v_proj': 'attention/value',
  'self_attn.o_proj': 'attention/out',
  'mlp.gate_proj': 'mlp/gate',
  'mlp.up_proj': 'mlp/up',
  'mlp.down_proj': 'mlp/down',
}
_NORMS = {
  'input_layernorm': 'attention_norm',
  'post_attention_layernorm': 'mlp_norm',
}
_HEAD_NORMS = {
  'self_attn.q_norm': 'attention/query_norm',
  'self_attn.k_norm': 'attention/key_norm',
}


def load(folder: hugging_face.Folder) -> tuple[decoder.Decoder, dict]:
  """The model and its float32 params; ValueError as `plan` says."""
  model, found = plan(folder)
  return model, found.read()


def plan(folder: hugging_face.Folder) -> tuple[decoder.Decoder, layout.Plan]:
  """The model, and where its params lie.

  Raises:
    ValueError: If config.json lacks sizes, asks for what the decoder lacks, or
      does not fit the tensors.
  """
  model = decoder.Decoder(config(folder))
  tied = r'|lm_head\.weight' if model.config.tied else ''
  return model, layout.plan(
    folder.checkpoint,
    model,
    (jax.ShapeDtypeStruct((1, 8), jnp.int32),),
    sources(model.config),
    ignored=rf'.*rotary_emb\.inv_freq{tied}',
  )


def config(folder: hugging_face.Folder) -> decoder.DecoderConfig:
  """The sizes of the decoder, from config.json and the names of tensors."""
  folder.expect('model_type', *KINDS)
  folder.expect('hidden_act', 'silu', default='silu')
  has = lambda name: f'model.layers.0.{name}' in folder.shapes
  width, heads = (
    folder.number(k) for k in ('hidden_size', 'num_attention_heads')
  )
  layers = folder.layers()
  head_dim = folder.number('head_dim', width // max(heads, 1))
  window, window_from = _window(folder, layers)
  return decoder.DecoderConfig(
    vocab=folder.number('vocab_size'),
    width=width,
    layers=layers,
    heads=heads,
    kv_heads=folder.number('num_key_value_heads', heads),
    head_dim=head_dim,
    hidden=folder.number('intermediate_size'),
    norm_eps=folder.number('rms_norm_eps', 1e-6),
    qkv_bias=has('self_attn.q_proj.bias'),
    out_bias=has('self_attn.o_proj.bias'),
    mlp_bias=has('mlp.gate_proj.bias'),
    qk_norm=has('self_attn.q_norm.weight'),
    window=window,
    window_from=window_from,
    tied=bool(folder.config.get('tie_word_embeddings', False)),
    **rope_scaling.of_folder(folder, head_dim),
  )


def _window(folder, layers: int) -> tuple[int, int]:
  """(window, its first layer)."""
  window = folder.number('sliding_window', 0)
  if folder.kind == 'llama' or (
    folder.kind != 'mistral' and not folder.config.get('use_sliding_window')
  ):
    return 0, 0
  if folder.kind == 'mistral':
    return window, 0
  first = folder.number('max_window_layers', 0)
  kinds = [
    'sliding_attention' if i >= first else 'full_attention'
    for i in range(layers)
  ]
  if folder.config.get('layer_types', kinds) != kinds:
    raise ValueError(
      f'`path` {folder.path}: layer_types must be full attention below '
      f'max_window_layers {first}, and windows from there on.'
    )
  return window, first


def sources(c: decoder.DecoderConfig) -> dict[str, layout.Source]:
  """The layout of the decoder in Hugging Face's names."""
  found = {
    'embed/embedding': layout.Source('model.embed_tokens.weight'),
    'final_norm/scale': layout.Source('model.norm.weight'),
  }
  if not c.tied:
    found['head/kernel'] = layout.kernel('lm_head.weight')
  biased = {'self_attn.o_proj': c.out_bias} | {
    n: c.mlp_bias for n in _MATRICES if n.startswith('mlp')
  }
  for i in range(c.layers):
    theirs, ours = f'model.layers.{i}', f'layers_{i}'
    for name, mine in (_NORMS | (_HEAD_NORMS if c.qk_norm else {})).items():
      found[f'{ours}/{mine}/scale'] = layout.Source(f'{theirs}.{name}.weight')
    for name, mine in _MATRICES.items():
      found[f'{ours}/{mine}/kernel'] = layout.kernel(f'{theirs}.{name}.weight')
      if biased.get(name, c.qkv_bias):
        found[f'{ours}/{mine}/bias'] = layout.Source(f'{theirs}.{name}.bias')
  return found
