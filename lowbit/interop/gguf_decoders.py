"""Decoders in GGUF files: Llama, Mistral, SmolLM2, Qwen2 and Qwen3."""

import jax
import jax.numpy as jnp

from lowbit.interop import gguf_file, layout, rope_scaling
from lowbit.models import decoder

ARCHITECTURES = ('llama', 'qwen2', 'qwen3')
_PERMUTED = ('llama',)  # Queries and keys in the order of interleaved pairs.
_BLOCK = {  # Their name -> ours, of the matrices of a layer.
  'attn_q': 'attention/query',
  'attn_k': 'attention/key',
  'attn_v': 'attention/value',
  'attn_output': 'attention/out',
  'ffn_gate': 'mlp/gate',
  'ffn_up': 'mlp/up',
  'ffn_down': 'mlp/down',
}


def load(file: gguf_file.GgufFile) -> tuple[decoder.Decoder, dict]:
  """The model and its float32 params; ValueError as `plan` says."""
  model, found = plan(file)
  return model, found.read()


def plan(file: gguf_file.GgufFile) -> tuple[decoder.Decoder, layout.Plan]:
  """The model, and where its params lie.

  Raises:
    ValueError: If metadata are missing or of another kind, ask for what the
      decoder lacks, or do not fit the tensors.
  """
  model = decoder.Decoder(config(file))
  return model, layout.plan(
    file,
    model,
    (jax.ShapeDtypeStruct((1, 8), jnp.int32),),
    sources_of(model.config, file.architecture),
    ignored=rope_scaling.FACTORS.replace('.', r'\.'),
  )


def config(file: gguf_file.GgufFile) -> decoder.DecoderConfig:
  """The sizes of the decoder, from metadata and the names of tensors."""
  _check_supported(file)
  width = file.number('embedding_length')
  heads = file.number('attention.head_count')
  head_dim = file.number('attention.key_length', width // max(heads, 1))
  if file.number('attention.value_length', head_dim) != head_dim:
    raise ValueError(f'`path` {file.path}: keys and values differ in length.')
  if file.number('rope.dimension_count', head_dim) != head_dim:
    raise ValueError(
      f'`path` {file.path}: rotary positions on a part of each head are not '
      'supported.'
    )
  has = lambda name: f'blk.0.{name}' in file.shapes
  return decoder.DecoderConfig(
    vocab=file.shape('token_embd.weight', 2)[0],
    width=width,
    layers=file.blocks(),
    heads=heads,
    kv_heads=file.number('attention.head_count_kv', heads),
    head_dim=head_dim,
    hidden=file.number('feed_forward_length'),
    norm_eps=file.number('attention.layer_norm_rms_epsilon', 0.0),
    qkv_bias=has('attn_q.bias'),
    out_bias=has('attn_output.bias'),
    mlp_bias=has('ffn_gate.bias'),
    qk_norm=has('attn_q_norm.weight'),
    window=file.number('attention.sliding_window', 0),
    tied='output.weight' not in file.shapes,
    **rope_scaling.of_gguf(file, head_dim),
  )


def _check_supported(file) -> None:
  if file.architecture not in ARCHITECTURES:
    raise ValueError(
      f'`path` {file.path} has the architecture {file.architecture!r}; as a '
      f'decoder, {", ".join(ARCHITECTURES)} are supported.'
    )
  if file.number('expert_count', 0):
    raise ValueError(f'`path` {file.path}: experts are not supported.')


def sources_of(
  c: decoder.DecoderConfig, architecture: str
) -> dict[str, layout.Source]:
  """The layout of a decoder in GGUF's names."""
  found = {
    'embed/embedding': layout.Source('token_embd.weight'),
    'final_norm/scale': layout.Source('output_norm.weight'),
  }
  if not c.tied:
    found['head/kernel'] = layout.kernel('output.weight')
  for i in range(c.layers):
    found |= _layer_sources(f'blk.{i}', f'layers_{i}', c, architecture)
  return found


def _layer_sources(theirs, ours, c, architecture) -> dict[str, layout.Source]:
  norms = {'attn_norm': 'attention_norm', 'ffn_norm': 'mlp_norm'}
  if c.qk_norm:
    norms |= {
      'attn_q_norm': 'attention/query_norm',
      'attn_k_norm': 'attention/key_norm',
    }
  found = {
    f'{ours}/{mine}/scale': layout.Source(f'{theirs}.{name}.weight')
    for name, mine in norms.items()
  }
  has_bias = {'attn_output': c.out_bias} | dict.fromkeys(
    ('ffn_gate', 'ffn_up', 'ffn_down'), c.mlp_bias
  )
  for name, mine in _BLOCK.items():
    heads = _permuted_heads(mine, c, architecture)
    turn = layout.unpermute(heads) if heads else lambda w: w
    found[f'{ours}/{mine}/kernel'] = layout.Source(
      f'{theirs}.{name}.weight', lambda w, turn=turn: turn(w).T
    )
    if has_bias.get(name, c.qkv_bias):
      found[f'{ours}/{mine}/bias'] = layout.Source(
        f'{theirs}.{name}.bias', turn
      )
  return found


def _permuted_heads(path: str, c: decoder.DecoderConfig, architecture) -> int:
  """Heads whose rows GGUF reorders, for a path with a layer's names; or 0."""
  if architecture not in _PERMUTED:
    return 0
  for name, heads in {'query': c.heads, 'key': c.kv_heads}.items():
    if f'attention/{name}' in path and 'norm' not in path:
      return heads
  return 0


def permute_of(path: str, c: decoder.DecoderConfig, architecture: str):
  """What brings the rows of a param [out, ...] in GGUF's order."""
  heads = _permuted_heads(path, c, architecture)
  return layout.permute(heads) if heads else lambda w: w
