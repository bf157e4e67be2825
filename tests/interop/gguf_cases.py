"""Small GGUF files of decoders, written with the package gguf alone."""

import gguf
import jax
import jax.numpy as jnp
import numpy as np
from tokenizers import pre_tokenizers

from lowbit.models import decoder

ALPHABET = sorted(pre_tokenizers.ByteLevel.alphabet())
MERGES = ['t h', 'th e', 'Ġ the', 'a n', 'an d', 'Ġ and', '1 2']
TOKENS = [
  '<|endoftext|>',
  *ALPHABET,
  *(m.replace(' ', '') for m in MERGES),
]
TOKENIZER = {
  'tokenizer.ggml.model': 'gpt2',
  'tokenizer.ggml.pre': 'smollm',
  'tokenizer.ggml.tokens': TOKENS,
  'tokenizer.ggml.merges': MERGES,
  'tokenizer.ggml.token_type': [3] + [1] * (len(TOKENS) - 1),
}
SIZES = dict(
  vocab=len(TOKENS),
  width=32,
  layers=2,
  heads=4,
  kv_heads=2,
  head_dim=8,
  hidden=64,
)


def model(seed=0, **changes):
  """A decoder and params, none of them trivial."""
  found = decoder.Decoder(decoder.DecoderConfig(**(SIZES | changes)))
  tokens = jnp.zeros((1, 4), jnp.int32)
  shapes = jax.eval_shape(found.init, jax.random.key(0), tokens)['params']
  rng = np.random.default_rng(seed)
  draw = lambda s: jnp.asarray(0.3 * rng.standard_normal(s.shape, np.float32))
  return found, jax.tree.map(draw, shapes)


def permuted(w, heads):
  """Rows as GGUF's llama has them: (i, i + C/2) of a head side by side."""
  halves = w.reshape(heads, 2, -1, *w.shape[1:])
  return np.stack([halves[:, 0], halves[:, 1]], 2).reshape(w.shape)


def write(path, found, params, architecture='llama', without=(), **fields):
  """A float32 GGUF file of a decoder, with a tokenizer."""
  c = found.config
  sizes = {
    'embedding_length': c.width,
    'block_count': c.layers,
    'attention.head_count': c.heads,
    'attention.head_count_kv': c.kv_heads,
    'attention.key_length': c.head_dim,
    'attention.value_length': c.head_dim,
    'feed_forward_length': c.hidden,
    'attention.layer_norm_rms_epsilon': c.norm_eps,
    'rope.freq_base': c.rope_base,
  }
  if c.window:
    sizes['attention.sliding_window'] = c.window
  sizes = {f'{architecture}.{key}': value for key, value in sizes.items()}
  held = tensors(c, params, architecture == 'llama')
  return write_file(
    path,
    architecture,
    sizes | TOKENIZER | fields,
    {k: v for k, v in held.items() if k not in without},
  )


def write_file(path, architecture, fields, tensors):
  """A float32 GGUF file of these fields and tensors."""
  writer = gguf.GGUFWriter(path, architecture)
  adders = {
    list: writer.add_array,
    str: writer.add_string,
    float: writer.add_float32,
    bool: writer.add_bool,
    int: writer.add_uint32,
  }
  for key, value in fields.items():
    adders[type(value)](key, value)
  for name, value in tensors.items():
    writer.add_tensor(name, np.ascontiguousarray(value, np.float32))
  writer.write_header_to_file()
  writer.write_kv_data_to_file()
  writer.write_tensors_to_file()
  writer.close()
  return path


def tensors(c, params, permute):
  """Their names -> values."""
  out = {
    'token_embd.weight': params['embed']['embedding'],
    'output_norm.weight': params['final_norm']['scale'],
  }
  if not c.tied:
    out['output.weight'] = params['head']['kernel'].T
  if c.rope_factors:
    out['rope_freqs.weight'] = np.float32(c.rope_factors)
  for i in range(c.layers):
    layer, at = params[f'layers_{i}'], f'blk.{i}.'
    attention, mlp = layer['attention'], layer['mlp']
    out[f'{at}attn_norm.weight'] = layer['attention_norm']['scale']
    out[f'{at}ffn_norm.weight'] = layer['mlp_norm']['scale']
    if c.qk_norm:
      out[f'{at}attn_q_norm.weight'] = attention['query_norm']['scale']
      out[f'{at}attn_k_norm.weight'] = attention['key_norm']['scale']
    named = {
      'attn_q': attention['query'],
      'attn_k': attention['key'],
      'attn_v': attention['value'],
      'attn_output': attention['out'],
      'ffn_gate': mlp['gate'],
      'ffn_up': mlp['up'],
      'ffn_down': mlp['down'],
    }
    for name, p in named.items():
      heads = {'attn_q': c.heads, 'attn_k': c.kv_heads}.get(name)
      turn = (
        (lambda w, h=heads: permuted(w, h))
        if permute and heads
        else (lambda w: w)
      )
      out[f'{at}{name}.weight'] = turn(np.asarray(p['kernel']).T)
      if 'bias' in p:
        out[f'{at}{name}.bias'] = turn(np.asarray(p['bias']))
  return out
