"""Exports: read back by the package gguf bit for bit, or refused."""

import chex
import gguf
import jax
import numpy as np
import pytest

import lowbit as lb
from lowbit import interop, operators
from lowbit.data import embedded
from lowbit.interop import (
  gguf_blocks,
  gguf_decoders,
  gguf_export,
  gguf_file,
  gguf_tokenizer,
)
from lowbit.models import decoder, gpt2
from tests.interop import gguf_cases

X = 0.05 * jax.random.normal(jax.random.key(0), (6, 512))
FITS = {
  'Q4_0': ['int4@g32:fp16', 'int4@g64:fp16', 'int3@g32:fp16'],
  'Q4_1': ['int4z@g32:e5m6ieee', 'int4z@g64:e5m6ieee', 'int4z@b32:e5m2'],
  'Q5_0': ['int5@g32:fp16', 'int4@g32:fp16'],
  'Q5_1': ['int5z@g32:e5m5ieee', 'int4z@g32:e5m6ieee', 'int5z@b32:e5m2'],
  'Q8_0': ['int8@g32:fp16', 'int8@channel:fp16', 'int2@tensor:fp16'],
  'MXFP4': ['mxfp4', 'e2m1@b32:e8m0-ceil', 'e2m1@b64:e8m0'],
  'TQ1_0': ['ternary@g256:fp16', 'ternary@channel:fp16'],
  'TQ2_0': ['ternary@g256:fp16', 'int2@g512:fp16'],
}


@pytest.mark.parametrize(
  'kind, spec', [(k, s) for k, specs in FITS.items() for s in specs]
)
def test_blocks_are_decoded_by_gguf_as_by_us(kind, spec):
  q = lb.quantize(X, spec)
  raw = gguf_blocks.encode(q, kind)
  block, width = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]]
  assert raw.dtype == np.uint8
  assert raw.shape == (6, 512 // block * width)
  got = gguf.dequantize(raw, gguf.GGMLQuantizationType[kind])
  assert np.unique(got).size > 2
  np.testing.assert_array_equal(got, lb.dequantize(q))
  assert kind in gguf_blocks.fitting(q)


@pytest.mark.parametrize('kind', ['Q8_0', 'MXFP4', 'TQ1_0', 'TQ2_0'])
def test_gguf_quantizes_its_own_grid_to_the_same_blocks(kind):
  """What llama.cpp would write for weights that are on the grid already."""
  q = lb.quantize(X, FITS[kind][0])
  raw = gguf_blocks.encode(q, kind)
  ggml = gguf.GGMLQuantizationType[kind]
  theirs = gguf.quantize(np.asarray(lb.dequantize(q)), ggml)
  want, got = (gguf.dequantize(r, ggml) for r in (theirs, raw))
  np.testing.assert_allclose(got, want, rtol=1e-3)


@pytest.mark.parametrize(
  'spec, kind, rule',
  [
    ('int4@g32', 'Q4_0', 'no float16 .* or export it as F32'),
    ('int8@g32:fp16', 'Q4_0', 'takes no int8. Use Q8_0'),
    ('int4@g32:fp16', 'MXFP4', 'takes no int4. Use Q4_0 or Q5_0 or Q8_0'),
    ('int4z@g32:fp16', 'Q4_1', 'zero point times .* int4z@g32:e5m6ieee'),
    ('int5z@g32:fp16', 'Q5_1', 'zero point times .* int5z@g32:e5m5ieee'),
    ('nf4@g32:fp16', 'Q4_0', 'takes no nf4'),
    ('nf4z@g32', 'Q4_1', 'zero points are no codes'),
    ('int4@g16:fp16', 'Q4_0', 'no float16'),
    ('ternary@g32:fp16', 'TQ1_0', 'Use Q4_0'),
    ('mxfp4', 'Q9', 'must be one of TQ1_0'),
  ],
)
def test_what_does_not_fit_is_refused(spec, kind, rule):
  with pytest.raises(ValueError, match=rule):
    gguf_blocks.encode(lb.quantize(X, spec), kind)


@pytest.mark.parametrize(
  'kind, wide', [('Q4_1', 'int4z@g32:fp16'), ('Q5_1', 'int5z@g32:fp16')]
)
def test_the_scales_that_fit_cost_little(kind, wide):
  x = jax.random.normal(jax.random.key(0), (64, 1024))
  error = lambda spec: np.mean((lb.dequantize(lb.quantize(x, spec)) - x) ** 2)
  assert error(gguf_blocks.KINDS[kind].spec) < 1.01 * error(wide)


def test_rows_that_do_not_divide_and_other_axes():
  with pytest.raises(ValueError, match='no multiple of 32'):
    gguf_blocks.encode(lb.quantize(X[:, :48], 'int4@channel:fp16'), 'Q4_0')
  with pytest.raises(ValueError, match='along the last axis'):
    gguf_blocks.encode(lb.quantize(X, 'int4@channel:fp16', axis=0), 'Q4_0')


TOKENS = jax.random.randint(
  jax.random.key(3), (2, 9), 0, gguf_cases.SIZES['vocab']
)


def quantized(spec='int4@g32:fp16', **changes):
  model, params = gguf_cases.model(**changes)
  table = lb.Rule('embed/embedding', 'int8@g32:fp16')
  recipe = lb.Recipe('test', (table, lb.Rule('.*', spec)))
  return model, lb.quantize_model(model, params, recipe, [TOKENS])


CASES = {
  'llama': dict(tied=True),
  'llama biased': dict(qkv_bias=True, out_bias=True, mlp_bias=True),
  'llama 3.1': dict(rope_factors=(1.0, 1.5, 4.0, 8.0)),
  'qwen2': dict(qkv_bias=True),
  'qwen3': dict(qk_norm=True),
}


@pytest.mark.parametrize('case', CASES)
@pytest.mark.parametrize('pack', [False, True])
def test_a_model_comes_back_with_all_its_numbers(tmp_path, case, pack):
  model, params = quantized(**CASES[case])
  params = operators.pack(params) if pack else params
  kinds = gguf_export.save(tmp_path / 'm.gguf', model, params)
  assert kinds['token_embd.weight'] == 'Q8_0'
  assert kinds['blk.1.attn_k.weight'] == 'Q4_0'
  assert kinds['blk.1.ffn_norm.weight'] == 'F32'
  file = gguf_file.GgufFile(tmp_path / 'm.gguf')
  assert file.architecture == case.split()[0]
  found, loaded = gguf_decoders.load(file)
  is_op = lambda x: isinstance(x, operators.Operator)
  dense = jax.tree.map(
    lambda x: x.dense() if is_op(x) else x, params, is_leaf=is_op
  )
  chex.assert_trees_all_equal(loaded, dense)
  assert found.config.rope_factors == model.config.rope_factors


def test_the_tokenizer_goes_along(tmp_path):
  model, params = gguf_cases.model()
  first = gguf_file.GgufFile(
    gguf_cases.write(tmp_path / 'a.gguf', model, params)
  )
  gguf_export.save(tmp_path / 'b.gguf', model, params, like=first)
  second = gguf_file.GgufFile(tmp_path / 'b.gguf')
  text = 'the cat and the dog, 12'
  a, b = (gguf_tokenizer.build(f).encode(text).ids for f in (first, second))
  assert a == b
  theirs = gguf.GGUFReader(tmp_path / 'b.gguf')
  assert len(theirs.tensors) == len(first.shapes)


def test_a_file_takes_the_bits_that_are_counted(tmp_path):
  """Within 1 %, for groups of ggml's own length."""
  spec = 'int4@g32:fp16'
  config, params = embedded.load()
  axis = lambda path: -1 if path[-1].key == 'embedding' else 0
  params = jax.tree_util.tree_map_with_path(
    lambda path, x: lb.quantize(x, spec, axis(path)) if x.ndim == 2 else x,
    params,
  )
  path = tmp_path / 'm.gguf'
  gguf_export.save(path, decoder.Decoder(config), params)
  size = 8 * path.stat().st_size
  assert lb.bits(params) < size < 1.01 * lb.bits(params)


def test_a_model_of_bytes_has_them_as_tokens(tmp_path):
  path = tmp_path / 'm.gguf'
  gguf_export.save(path, *gguf_cases.model(vocab=256))
  found = interop.load(path).tokenizer
  text = 'Épée, 猫\t12\n\0'
  assert found.encode(text).ids == list(text.encode())
  assert found.decode(found.encode(text).ids) == text
  assert sorted(found.get_vocab()) == gguf_cases.ALPHABET
  gguf_export.save(path, *gguf_cases.model())
  assert 'tokenizer.ggml.model' not in gguf_file.GgufFile(path).fields


def test_yarn_comes_back_as_factors_and_a_scale(tmp_path):
  sizes = dict(rope_factors=(1.0, 1.5, 2.0, 4.0), rope_scale=1.25)
  model, params = gguf_cases.model(**sizes)
  gguf_export.save(tmp_path / 'm.gguf', model, params)
  found = gguf_decoders.config(gguf_file.GgufFile(tmp_path / 'm.gguf'))
  assert {name: getattr(found, name) for name in sizes} == sizes


def test_models_that_gguf_cannot_hold(tmp_path):
  path = tmp_path / 'm.gguf'
  model, params = quantized('int4@g32')
  with pytest.raises(ValueError, match=r'head/kernel, int4@g32 of .* fits no'):
    gguf_export.save(path, model, params)
  rule = lb.Rule('.*', 'int4@g32:fp16', 'int8@token')
  held = lb.quantize_model(
    model, gguf_cases.model()[1], lb.Recipe('a', (rule,)), [TOKENS]
  )
  with pytest.raises(ValueError, match='QuantizeInput; files of others'):
    gguf_export.save(path, model, held)
  for odd in (dict(window=3, window_from=1), dict(rope_dynamic=(2.0, 8))):
    model, params = gguf_cases.model(**odd)
    with pytest.raises(ValueError, match='no counterpart'):
      gguf_export.save(path, model, params)
  with pytest.raises(TypeError, match='`model` must be a Decoder, got a GPT2'):
    gguf_export.save(path, gpt2.GPT2(), params)
  assert not path.exists()
