"""compressed-tensors: the layout; the package itself in oracle_test.py."""

import dataclasses
import json

import chex
import jax
import numpy as np
import pytest

import lowbit as lb
from lowbit.interop import compressed_tensors, safetensors_file
from tests.interop import gguf_cases

X = 0.05 * jax.random.normal(jax.random.key(0), (6, 64))
TOKENS = jax.random.randint(
  jax.random.key(3), (2, 9), 0, gguf_cases.SIZES['vocab']
)


def test_words_hold_eight_codes_from_the_lowest_bits_on():
  q = lb.quantize(X, 'int4@g32')
  tensors, scheme = compressed_tensors.encode(q)
  words = tensors['weight_packed'].view(np.uint32)
  assert words.shape == (6, 8)
  codes = np.stack([words >> 4 * i & 15 for i in range(8)], -1).reshape(6, 64)
  np.testing.assert_array_equal(codes.astype(int) - 8, q.codes)
  assert scheme.weights()['group_size'] == 32
  assert tensors['weight_shape'].tolist() == [6, 64]


@pytest.mark.parametrize(
  'spec',
  [
    'e2m1@g16:(e4m3@channel)',
    'int4z@g32',
    'int8@g32',
    'nf4@g32',
    'int4@g48',
    'e4m3@tensor',
  ],
)
def test_what_does_not_fit_is_refused(spec):
  with pytest.raises(ValueError, match=r'no layout .* What fits: int4@g128'):
    compressed_tensors.encode(lb.quantize(X, spec))


@pytest.mark.parametrize('seed', range(4))
def test_the_second_level_of_nvfp4_divides(seed):
  x = jax.random.normal(jax.random.key(seed), (8, 64))
  q = lb.quantize(x, 'nvfp4')
  settled = compressed_tensors.settle({'a': {'b': q}})['a']['b']
  tensors, scheme = compressed_tensors.encode(settled)
  scale = tensors['weight_scale'].astype(np.float32)
  scale = scale / tensors['weight_global_scale']  # As its readers do.
  np.testing.assert_array_equal(scale, lb.quantize.scales_of(settled))
  assert scheme.weights()['strategy'] == 'tensor_group'
  # The scale has moved by a few units in the last place, nothing else has.
  chex.assert_trees_all_close(settled.scale.scale, q.scale.scale, rtol=1e-5)
  chex.assert_trees_all_equal(settled.codes, q.codes)
  chex.assert_trees_all_equal(settled.scale.codes, q.scale.codes)
  again = compressed_tensors.settle(settled)
  chex.assert_trees_all_equal(again, settled)


def test_a_second_level_without_a_divisor_is_refused():
  q = lb.quantize(jax.random.normal(jax.random.key(1), (8, 64)), 'nvfp4')
  inner = dataclasses.replace(q.scale, scale=np.float32([[1 / 3]]))
  q = dataclasses.replace(q, scale=inner)
  with pytest.raises(ValueError, match=r'nvfp4 of shape .*settle\(params\)'):
    compressed_tensors.encode(q)


def test_powers_of_two_have_divisors_and_all_specs_are_settled_packed():
  x = jax.random.normal(jax.random.key(2), (8, 64))
  q = lb.quantize(x, 'e2m1@g16:(e4m3@tensor:ceil)')
  chex.assert_trees_all_equal(compressed_tensors.settle(q), q)
  compressed_tensors.encode(q)
  tree = [lb.pack(lb.quantize(x, s)) for s in ('nvfp4', 'mxfp4', 'int4@g32')]
  moved = compressed_tensors.settle([*tree, x])
  compressed_tensors.encode(lb.unpack(moved[0]))
  chex.assert_trees_all_equal(moved[1:], [*tree[1:], x])


def save(folder, **changes):
  model, params = gguf_cases.model(**changes)
  rules = (
    lb.Rule('embed/embedding', 'int8@channel'),
    lb.Rule('head/kernel'),
    lb.Rule('.*/mlp/.*', 'e4m3@channel'),
    lb.Rule('.*', 'int4@g16'),
  )
  rules = rules[:1] + rules[2:] if changes.get('tied') else rules
  held = lb.quantize_model(model, params, lb.Recipe('mix', rules), [TOKENS])
  return held, compressed_tensors.save(folder, model, held)


def test_a_folder_of_several_schemes(tmp_path):
  held, schemes = save(tmp_path)
  config = json.loads((tmp_path / 'config.json').read_text())
  quantization = config['quantization_config']
  assert quantization['format'] == 'mixed-precision'
  assert quantization['ignore'] == ['lm_head']
  groups = quantization['config_groups'].values()
  assert sum(len(g['targets']) for g in groups) == len(schemes) == 14
  file = safetensors_file.SafetensorsFile(tmp_path / 'model.safetensors')
  up = 'model.layers.0.mlp.up_proj'
  got = file.read(f'{up}.weight') * file.read(f'{up}.weight_scale')
  want = held['layers_0']['mlp']['up']['kernel'].dense().T
  np.testing.assert_array_equal(got, want)
  table = held['embed']['embedding'].dense()
  np.testing.assert_array_equal(file.read('model.embed_tokens.weight'), table)


@pytest.mark.parametrize(
  'kind, changes',
  [
    ('llama', dict(qkv_bias=True, out_bias=True, mlp_bias=True)),
    ('mistral', dict(window=4)),
    ('qwen2', dict(qkv_bias=True)),
    ('qwen3', dict(qk_norm=True)),
  ],
)
def test_the_architecture_is_the_one_that_fits(tmp_path, kind, changes):
  model, params = gguf_cases.model(**changes)
  compressed_tensors.save(tmp_path, model, params)
  config = json.loads((tmp_path / 'config.json').read_text())
  assert config['model_type'] == kind
  # Without a quantized weight it is a plain folder, which comes back.
  found = lb.interop.load(tmp_path)
  assert found.model.config == model.config


def test_models_without_a_counterpart(tmp_path):
  for odd in (
    dict(rope_factors=(1.0, 1.5, 4.0, 8.0)),
    dict(rope_dynamic=(2.0, 8)),
    dict(rope_scale=2.0),
  ):
    model, params = gguf_cases.model(**odd)
    with pytest.raises(ValueError, match='No architecture'):
      compressed_tensors.save(tmp_path / 'x', model, params)
  assert not (tmp_path / 'x').exists()
