"""Quantized decoders as compressed-tensors folders, for vLLM and transformers.

Layouts: the package compressed-tensors, 'pack-quantized' (integers in int32
words), 'int-quantized' and 'float-quantized' (one byte a weight),
'mxfp4-pack-quantized' and 'nvfp4-pack-quantized'. vLLM joins the query, key and
value projections, and gate and up, and takes one second-level scale of NVFP4
for all: it is exact where these are equal.
"""

import dataclasses
import json
import os
import pathlib
from collections.abc import Mapping

import ml_dtypes
import numpy as np

from lowbit import formats, quantize
from lowbit.interop import (
  gguf_export,
  global_scale,
  hf_decoders,
  safetensors_file,
)
from lowbit.models import decoder
from lowbit.transforms import structure

MX = (formats.get('e2m1'), 32, formats.get('e8m0'))  # Under any scale rule.
settle = global_scale.settle
FITS = (
  'int4@g128 (any group, or @channel), int8@channel, e4m3@channel, mxfp4 and '
  'nvfp4'
)


@dataclasses.dataclass(frozen=True)
class Scheme:
  """How weights are stored: what config.json says of them."""

  format: str
  bits: int
  kind: str  # 'int' or 'float'.
  strategy: str  # 'channel', 'group' or 'tensor_group', of two levels.
  group: int | None

  def weights(self) -> dict:
    """The package's QuantizationArgs."""
    dtype = {'mxfp4': 'torch.uint8', 'nvfp4': 'torch.float8_e4m3fn'}
    scale = dtype.get(self.format.removesuffix('-pack-quantized'))
    return {
      'num_bits': self.bits,
      'type': self.kind,
      'symmetric': True,
      'strategy': self.strategy,
      'group_size': self.group,
      'dynamic': False,
      **({} if scale is None else {'scale_dtype': scale}),
    }


def encode(q: quantize.QTensor) -> tuple[dict[str, np.ndarray], Scheme]:
  """Tensors of one weight, by the ends of their names, and their scheme.

  Args:
    q: [out, in], groups along the last axis.

  Raises:
    ValueError: If no layout holds `q` exactly.
  """
  scheme = _scheme(q)
  codes = np.asarray(q.codes)
  if scheme.kind == 'float' and scheme.bits == 4:
    packed = {'weight_packed': codes[:, ::2] | codes[:, 1::2] << 4}
    return packed | _small_scales(q), scheme
  scale = np.asarray(quantize.scales_of(q), np.float32)
  if scheme.format == 'pack-quantized':
    packed = {
      'weight_packed': _words(codes.astype(np.int32) + 8),
      'weight_shape': np.asarray(codes.shape, np.int64),
    }
    return packed | {'weight_scale': scale}, scheme
  if scheme.kind == 'float':
    codes = codes.view(ml_dtypes.float8_e4m3fn)
  return {'weight': codes, 'weight_scale': scale}, scheme


def _small_scales(q) -> dict[str, np.ndarray]:
  """Of MXFP4: exponents; of NVFP4: e4m3 and what divides it."""
  if not isinstance(q.scale, quantize.QTensor):
    return {'weight_scale': np.asarray(q.scale, np.uint8)}
  scale = np.asarray(q.scale.codes).view(ml_dtypes.float8_e4m3fn)
  over = global_scale.divisor(q)
  if over is None:
    raise ValueError(
      f'The second-level scale of {q.spec} of shape {q.shape} has no float32 '
      'reciprocal that divides as it multiplies. compressed_tensors.settle('
      'params) moves it to the nearest that has one, by about 1e-7 of it.'
    )
  return {'weight_scale': scale, 'weight_global_scale': over}


def _words(nibbles) -> np.ndarray:
  """[out, in] below 16 -> int32 [out, in / 8], the first code lowest."""
  out, width = nibbles.shape
  padded = np.pad(nibbles, ((0, 0), (0, -width % 8))).astype(np.uint32)
  shifts = np.arange(0, 32, 4, dtype=np.uint32)
  words = (padded.reshape(out, -1, 8) << shifts).sum(axis=-1, dtype=np.uint32)
  return words.view(np.int32)


def _scheme(q: quantize.QTensor) -> Scheme:
  fmt, spec = q.spec.format, q.spec
  fits = q.axis == (-1,) and q.ndim == 2 and not spec.zero_point
  integer = isinstance(fmt, formats.Integer) and fmt.signed
  grouped = isinstance(spec.block, int)
  even = not grouped or q.shape[1] % spec.block == 0
  group = spec.block if grouped else None
  strategy = 'group' if grouped else 'channel'
  single = q.ndim == 2 and q.scale.shape == (q.shape[0], 1)
  if fits and even and (grouped or single):
    if (fmt, spec.block, spec.scale_format) == MX:
      return Scheme('mxfp4-pack-quantized', 4, 'float', 'group', 32)
    if global_scale.is_nvfp4(spec):
      return Scheme('nvfp4-pack-quantized', 4, 'float', 'tensor_group', 16)
    if isinstance(q.scale, quantize.QTensor):
      pass
    elif integer and fmt.bits <= 4:
      return Scheme('pack-quantized', 4, 'int', strategy, group)
    elif integer and fmt.bits <= 8 and single:
      return Scheme('int-quantized', 8, 'int', 'channel', None)
    elif fmt.name == 'e4m3' and single:
      return Scheme('float-quantized', 8, 'float', 'channel', None)
  raise ValueError(
    f'{spec} of shape {q.shape} has no layout in compressed-tensors that holds '
    f'it exactly. What fits: {FITS}.'
  )


def save(
  folder: str | os.PathLike, model: decoder.Decoder, params: Mapping
) -> dict[str, Scheme]:
  """Writes config.json and model.safetensors of a quantized decoder.

  Args:
    folder: Made if it is not there. The tokenizer's files are not written.
    model: The decoder, unrolled, without rotary factors.
    params: QTensors or `operators.Coded` [in, out], packed or not; float arrays
      and a quantized look-up table are written as float32.

  Returns:
    Name of each quantized module -> its scheme.

  Raises:
    ValueError: If a weight has no layout, or the config no counterpart; before
      anything is written.
  """
  config = _config(model.config)
  tensors, schemes = {}, {}
  for ours, source in hf_decoders.sources(model.config).items():
    leaf = structure.get(params, ours)
    q = gguf_export.coded(leaf, ours)
    if q is None or not ours.endswith('kernel'):
      value = leaf if q is None else quantize.dequantize(q)
      value = np.asarray(value, np.float32)
      tensors[source.name] = value.T if ours.endswith('kernel') else value
      continue
    module = source.name.removesuffix('.weight')
    parts, schemes[module] = encode(quantize.transpose(q))
    tensors |= {f'{module}.{end}': value for end, value in parts.items()}
  config['quantization_config'] = _quantization(schemes, model.config)
  folder = pathlib.Path(folder)
  folder.mkdir(parents=True, exist_ok=True)
  safetensors_file.write(folder / 'model.safetensors', tensors)
  (folder / 'config.json').write_text(json.dumps(config, indent=2))
  return schemes


def _config(c: decoder.DecoderConfig) -> dict:
  """config.json of the architecture that does what the config asks for."""
  biases = (c.qkv_bias, c.out_bias, c.mlp_bias)
  turned = c.rope_factors or c.rope_dynamic or c.rope_scale != 1
  plain = not (turned or c.scan_layers or c.window_from)
  kinds = {
    'llama': c.qkv_bias == c.out_bias and not (c.qk_norm or c.window),
    'mistral': c.window and not (c.qk_norm or any(biases)),
    'qwen2': biases == (True, False, False) and not (c.qk_norm or c.window),
    'qwen3': c.qk_norm and not (any(biases) or c.window),
  }
  kind = next((k for k, fits in kinds.items() if plain and fits), None)
  if kind is None:
    raise ValueError(
      f'No architecture of Hugging Face that is known here does what {c} asks '
      'for.'
    )
  classes = {'llama': 'Llama', 'mistral': 'Mistral', 'qwen2': 'Qwen2'}
  return {
    'architectures': [f'{classes.get(kind, "Qwen3")}ForCausalLM'],
    'model_type': kind,
    'vocab_size': c.vocab,
    'hidden_size': c.width,
    'num_hidden_layers': c.layers,
    'num_attention_heads': c.heads,
    'num_key_value_heads': c.kv_heads,
    'head_dim': c.head_dim,
    'intermediate_size': c.hidden,
    'rms_norm_eps': c.norm_eps,
    'rope_theta': c.rope_base,
    'tie_word_embeddings': c.tied,
    'attention_bias': c.qkv_bias,
    'mlp_bias': c.mlp_bias,
    'sliding_window': c.window or None,
    'torch_dtype': 'float32',
  }


def _quantization(schemes: Mapping[str, Scheme], c) -> dict:
  distinct = list(dict.fromkeys(schemes.values()))
  formats_used = {s.format for s in distinct}
  groups = {
    f'group_{i}': {
      'targets': [m for m, s in schemes.items() if s == scheme],
      'weights': scheme.weights(),
      'format': scheme.format,
    }
    for i, scheme in enumerate(distinct)
  }
  linear = {
    s.name.removesuffix('.weight')
    for path, s in hf_decoders.sources(c).items()
    if path.endswith('kernel')
  }
  one = len(formats_used) == 1
  return {
    'quant_method': 'compressed-tensors',
    'quantization_status': 'compressed',
    'format': formats_used.pop() if one else 'mixed-precision',
    'config_groups': groups,
    'ignore': sorted(linear - set(schemes)),
  }
