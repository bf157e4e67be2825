"""Decoders in GGUF files: Llama, Mistral, SmolLM2, Qwen2 and Qwen3."""

import jax
import jax.numpy as jnp

from lowbit.interop import gguf_file, layout
from lowbit.models import decoder

ARCHITECTURES = ('llama', 'qwen2', 'qwen3')
_PERMUTED = ('llama',)  # Queries and keys in the order of interleaved pairs.
_FACTORS = 'rope_freqs.weight'
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
  """The model and its float32 params.

  Raises:
    ValueError: If metadata are missing or of another kind, ask for what the
      decoder lacks, or do not fit the tensors; before tensors are read.
  """
  model = decoder.Decoder(config(file))
  return model, layout.assemble(
    file,
    model,
    (jax.ShapeDtypeStruct((1, 8), jnp.int32),),
    sources(file, model.config),
    ignored=_FACTORS.replace('.', r'\.'),
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
  base = file.number('rope.freq_base', 10_000.0)
  has = lambda name: f'blk.0.{name}' in file.shapes
  return decoder.DecoderConfig(
    vocab=file.shape('token_embd.weight', 2)[0],
    width=width,
    layers=file.blocks(),
    heads=heads,
    kv_heads=file.number('attention.head_count_kv', heads),
    head_dim=head_dim,
    hidden=file.number('feed_forward_length'),
    rope_base=base,
    rope_factors=_factors(file, head_dim),
    norm_eps=file.number('attention.layer_norm_rms_epsilon', 0.0),
    qkv_bias=has('attn_q.bias'),
    out_bias=has('attn_output.bias'),
    mlp_bias=has('ffn_gate.bias'),
    qk_norm=has('attn_q_norm.weight'),
    window=file.number('attention.sliding_window', 0),
    tied='output.weight' not in file.shapes,
  )


def _check_supported(file) -> None:
  if file.architecture not in ARCHITECTURES:
    raise ValueError(
      f'`path` {file.path} has the architecture {file.architecture!r}; as a '
      f'decoder, {", ".join(ARCHITECTURES)} are supported.'
    )
  if file.number('expert_count', 0):
    raise ValueError(f'`path` {file.path}: experts are not supported.')


def _factors(file, head_dim: int) -> tuple[float, ...]:
  """What divides the rotary frequencies: a tensor (Llama 3.1), or a number."""
  if _FACTORS in file.shapes:
    if file.shapes[_FACTORS] != (head_dim // 2,):
      raise ValueError(
        f'Tensor {_FACTORS} of `path` {file.path} has the shape '
        f'{file.shapes[_FACTORS]}, not ({head_dim // 2},).'
      )
    return tuple(file.read(_FACTORS).tolist())
  kind = file.fields.get(f'{file.architecture}.rope.scaling.type', 'none')
  if kind == 'none':
    return ()
  if kind != 'linear':
    raise ValueError(
      f'`path` {file.path}: rotary scaling of the type {kind!r} is not '
      'supported; none and linear are, and the factors of Llama 3.'
    )
  return (file.number('rope.scaling.factor', 1.0),) * (head_dim // 2)


def sources(
  file: gguf_file.GgufFile, c: decoder.DecoderConfig
) -> dict[str, layout.Source]:
  """The layout of the decoder in GGUF's names."""
  found = {
    'embed/embedding': layout.Source('token_embd.weight'),
    'final_norm/scale': layout.Source('output_norm.weight'),
  }
  if not c.tied:
    found['head/kernel'] = layout.kernel('output.weight')
  for i in range(c.layers):
    found |= _layer_sources(f'blk.{i}', f'layers_{i}', c, file.architecture)
  return found


def _layer_sources(theirs, ours, c, architecture) -> dict[str, layout.Source]:
  norms = {'attn_norm': 'attention_norm', 'ffn_norm': 'mlp_norm'}
  if c.qk_norm:
    norms |= {f'attn_{a[0]}_norm': f'attention/{a}_norm' for a in _HEADS}
  found = {
    f'{ours}/{mine}/scale': layout.Source(f'{theirs}.{name}.weight')
    for name, mine in norms.items()
  }
  has_bias = {'attn_output': c.out_bias} | dict.fromkeys(
    ('ffn_gate', 'ffn_up', 'ffn_down'), c.mlp_bias
  )
  for name, mine in _BLOCK.items():
    turn = _rows(name, c, architecture)
    found[f'{ours}/{mine}/kernel'] = layout.Source(
      f'{theirs}.{name}.weight', lambda w, turn=turn: turn(w).T
    )
    if has_bias.get(name, c.qkv_bias):
      found[f'{ours}/{mine}/bias'] = layout.Source(
        f'{theirs}.{name}.bias', turn
      )
  return found


_HEADS = ('query', 'key')


def _rows(name: str, c: decoder.DecoderConfig, architecture: str):
  """How the rows of a matrix are ordered."""
  heads = {'attn_q': c.heads, 'attn_k': c.kv_heads}.get(name)
  if heads is None or architecture not in _PERMUTED:
    return lambda w: w
  return layout.unpermute(heads)
