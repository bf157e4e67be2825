"""Quantized decoders as GGUF files, for llama.cpp and others."""

import os
from collections.abc import Mapping

import jax
import numpy as np

from lowbit import operators, quantize
from lowbit.interop import (
  gguf_blocks,
  gguf_bpe,
  gguf_decoders,
  gguf_file,
  rope_scaling,
)
from lowbit.models import decoder
from lowbit.transforms import structure


def save(
  path: str | os.PathLike,
  model: decoder.Decoder,
  params: Mapping,
  like: gguf_file.GgufFile | None = None,
) -> dict[str, str]:
  """Writes a decoder, its quantized weights without a change of any number.

  Args:
    path: File to write.
    model: The decoder, unrolled.
    params: Float arrays, which are written as float32, or QTensors and
      `operators.Coded`, packed or not, each in the smallest ggml type that
      holds it exactly. Norms and biases are float.
    like: Its tokenizer and name are kept. Without, a model of 256 tokens gets
      the bytes as its tokens, and no other can be loaded by llama.cpp.

  Returns:
    Name of each tensor -> its ggml type.

  Raises:
    TypeError: If `model` is no Decoder.
    ValueError: If a weight fits no ggml type exactly, or is another operator;
      or a config has no counterpart. Before anything is written.
    ImportError: Without the package `gguf`.
  """
  gguf_file.check_package()
  import gguf

  if not isinstance(model, decoder.Decoder):
    kind = type(model).__name__
    raise TypeError(f'`model` must be a Decoder, got a {kind}.')
  architecture = _architecture(model.config)
  tensors = _tensors(model.config, params, architecture)
  writer = gguf.GGUFWriter(path, architecture)
  _write_sizes(writer, model.config)
  bare = gguf_bpe.of_bytes() if model.config.vocab == 256 else {}
  _write_fields(writer, bare if like is None else like.fields)
  for name, (value, kind) in tensors.items():
    raw = None if kind == 'F32' else gguf.GGMLQuantizationType[kind]
    writer.add_tensor(name, value, raw_dtype=raw)
  writer.write_header_to_file()
  writer.write_kv_data_to_file()
  writer.write_tensors_to_file()
  writer.close()
  return {name: kind for name, (_, kind) in tensors.items()}


def _architecture(c: decoder.DecoderConfig) -> str:
  """The one of llama.cpp that does what the config asks for."""
  if c.scan_layers or c.window_from or c.rope_dynamic:
    raise ValueError(
      'Scanned layers, windows in a part of them, and dynamic rotary bases '
      'have no counterpart in GGUF: unstack the params, and set '
      'scan_layers=False, window_from=0, rope_dynamic=().'
    )
  odd = c.out_bias or c.mlp_bias
  if c.qk_norm and not (odd or c.qkv_bias):
    return 'qwen3'
  if c.qk_norm:
    raise ValueError('Head norms beside biases have no counterpart in GGUF.')
  return 'qwen2' if c.qkv_bias and not odd else 'llama'


def _tensors(c, params, architecture) -> dict[str, tuple[np.ndarray, str]]:
  """Name -> (value or blocks, ggml type)."""
  found = {}
  for ours, source in gguf_decoders.sources_of(c, architecture).items():
    leaf = structure.get(params, ours)
    q = coded(leaf, ours)
    turn = gguf_decoders.permute_of(ours, c, architecture)
    if q is None:
      value = np.asarray(leaf, np.float32)
      value = turn(value.T if ours.endswith('kernel') else value)
      found[source.name] = np.ascontiguousarray(value), 'F32'
    else:
      q = quantize.transpose(q) if ours.endswith('kernel') else q
      found[source.name] = _blocks(_turned(q, turn), ours)
  if c.rope_factors:
    found[rope_scaling.FACTORS] = np.float32(c.rope_factors), 'F32'
  return found


def coded(leaf, path: str) -> quantize.QTensor | None:
  """The codes of a leaf; None for a float array."""
  if isinstance(leaf, operators.Coded):
    leaf = leaf.q
  if isinstance(leaf, quantize.PackedQTensor):
    leaf = quantize.unpack(leaf)
  if isinstance(leaf, operators.Operator):
    raise ValueError(
      f'{path} is a {type(leaf).__name__}; files of others have plain weights '
      'alone. Use a recipe that quantizes weights only, without rotations.'
    )
  return leaf if isinstance(leaf, quantize.QTensor) else None


def _turned(q: quantize.QTensor, turn) -> quantize.QTensor:
  """Rows in another order, their scales with them."""
  whole = lambda a: a.shape[0] == q.shape[0]
  return jax.tree.map(lambda a: turn(a) if whole(a) else a, q)


def _blocks(q: quantize.QTensor, path: str) -> tuple[np.ndarray, str]:
  kinds = gguf_blocks.fitting(q)
  if not kinds:
    known = ', '.join(f'{k.spec} ({n})' for n, k in gguf_blocks.KINDS.items())
    raise ValueError(
      f'{path}, {q.spec} of shape {q.shape} as [out, in], fits no ggml type '
      f'exactly. What fits: {known}; and int8@channel:fp16 and the like.'
    )
  return gguf_blocks.encode(q, kinds[0]), kinds[0]


def _write_sizes(writer, c: decoder.DecoderConfig) -> None:
  writer.add_vocab_size(c.vocab)
  writer.add_context_length(2048)
  writer.add_embedding_length(c.width)
  writer.add_block_count(c.layers)
  writer.add_feed_forward_length(c.hidden)
  writer.add_head_count(c.heads)
  writer.add_head_count_kv(c.kv_heads)
  writer.add_key_length(c.head_dim)
  writer.add_value_length(c.head_dim)
  writer.add_rope_dimension_count(c.head_dim)
  writer.add_rope_freq_base(c.rope_base)
  if c.rope_scale != 1:
    writer.add_rope_scaling_attn_factors(c.rope_scale)
  writer.add_layer_norm_rms_eps(c.norm_eps)
  if c.window:
    writer.add_sliding_window(c.window)


def _write_fields(writer, fields: Mapping) -> None:
  """The tokenizer and name of another file."""
  for key, value in fields.items():
    if not key.startswith(('tokenizer.', 'general.name')):
      continue
    if isinstance(value, np.ndarray):
      writer.add_array(key, value.tolist())
    else:
      adders = {
        bool: writer.add_bool,
        int: writer.add_uint32,
        float: writer.add_float32,
        str: writer.add_string,
        list: writer.add_array,
      }
      adders[type(value)](key, value)
