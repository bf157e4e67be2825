"""Decoders in Hugging Face's layout; transformers itself in oracle_test.py."""

import json

import chex
import jax
import numpy as np
import pytest
import safetensors.numpy
from tokenizers import Tokenizer, models

from lowbit.interop import hf_decoders, hugging_face
from lowbit.models import rotary
from tests.interop import gguf_cases

TOKENS = jax.random.randint(
  jax.random.key(3), (2, 9), 0, gguf_cases.SIZES['vocab']
)
NAMES = {
  'query': 'self_attn.q_proj',
  'key': 'self_attn.k_proj',
  'value': 'self_attn.v_proj',
  'out': 'self_attn.o_proj',
  'gate': 'mlp.gate_proj',
  'up': 'mlp.up_proj',
  'down': 'mlp.down_proj',
  'query_norm': 'self_attn.q_norm',
  'key_norm': 'self_attn.k_norm',
  'attention_norm': 'input_layernorm',
  'mlp_norm': 'post_attention_layernorm',
}


def tensors(params):
  found = {}
  for path, x in jax.tree_util.tree_leaves_with_path(params):
    layer, *_, owner, leaf = (k.key for k in ((path[0], *path)))
    weight = np.ascontiguousarray(np.asarray(x).T if leaf == 'kernel' else x)
    kind = 'bias' if leaf == 'bias' else 'weight'
    if layer.startswith('layers_'):
      name = f'model.layers.{layer[7:]}.{NAMES[owner]}.{kind}'
    else:
      name = {
        'embed': 'model.embed_tokens.weight',
        'final_norm': 'model.norm.weight',
        'head': 'lm_head.weight',
      }[layer]
    found[name] = weight
  return found


def write(folder, model, params, kind='llama', drop=(), add=None, **changes):
  c = model.config
  config = {
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
    'rope_scaling': None,
  }
  (folder / 'config.json').write_text(json.dumps(config | changes))
  held = {k: v for k, v in tensors(params).items() if k not in drop}
  safetensors.numpy.save_file(held | (add or {}), folder / 'model.safetensors')
  return folder


LLAMA3 = {
  'rope_type': 'llama3',
  'factor': 8.0,
  'low_freq_factor': 1.0,
  'high_freq_factor': 4.0,
  'original_max_position_embeddings': 64,
}
YARN = {
  'rope_type': 'yarn',
  'factor': 4.0,
  'original_max_position_embeddings': 64,
}
CASES = {
  'llama': ({}, {}),
  'llama 3.1': (
    dict(rope_factors=rotary.llama3_factors(1e4, 8, 8.0, 1.0, 4.0, 64)),
    {'rope_scaling': LLAMA3},
  ),
  'llama linear': (
    dict(rope_factors=(2.0,) * 4),
    {'rope_scaling': {'type': 'linear', 'factor': 2.0}},
  ),
  'llama yarn': (
    dict(
      rope_factors=rotary.yarn_factors(1e4, 8, 4.0, 64),
      rope_scale=rotary.yarn_scale(4.0),
    ),
    {'rope_scaling': YARN, 'max_position_embeddings': 256},
  ),
  'llama yarn of few numbers': (
    dict(
      rope_factors=rotary.yarn_factors(1e4, 8, 4.0, 64, 16.0, 2.0, False),
      rope_scale=1.25,
    ),
    {
      'rope_scaling': YARN
      | {
        'factor': None,
        'beta_fast': 16,
        'beta_slow': 2,
        'truncate': False,
        'attention_factor': 1.25,
      },
      'max_position_embeddings': 256,
    },
  ),
  'llama dynamic': (
    dict(rope_dynamic=(2.0, 64)),
    {
      'rope_scaling': {'type': 'dynamic', 'factor': 2.0},
      'max_position_embeddings': 64,
    },
  ),
  'llama new': (
    dict(rope_base=1e5),
    {
      'rope_theta': None,
      'rope_parameters': {'rope_type': 'default', 'rope_theta': 1e5},
    },
  ),
  'mistral': (dict(window=4), {'sliding_window': 4}),
  'qwen2': (dict(qkv_bias=True, tied=True), {'sliding_window': 4}),
  'qwen2 window': (
    dict(window=4, window_from=1),
    {
      'sliding_window': 4,
      'use_sliding_window': True,
      'max_window_layers': 1,
      'layer_types': ['full_attention', 'sliding_attention'],
    },
  ),
  'qwen3': (dict(qk_norm=True), {}),
}


@pytest.mark.parametrize('case', CASES)
def test_a_folder_gives_the_model_that_was_written(tmp_path, case):
  sizes, fields = CASES[case]
  model, params = gguf_cases.model(**sizes)
  write(tmp_path, model, params, case.split()[0], **fields)
  found, loaded = hf_decoders.load(hugging_face.read(tmp_path))
  assert found.config == model.config
  chex.assert_trees_all_equal(loaded, params)


UP = 'model.layers.1.mlp.up_proj.weight'
REFUSED = {
  rf"missing \['{UP}'\]": dict(drop=(UP,)),
  r"unknown \['odd'\]": dict(add={'odd': np.ones(3, np.float32)}),
  'has the shape .* ask for': dict(intermediate_size=48),
  'claims 999999 layers': dict(num_hidden_layers=999_999),
  "'gemma' .* is not supported": dict(kind='gemma'),
  "hidden_act 'gelu'": dict(hidden_act='gelu'),
  "type 'longrope' .* default, linear, dynamic, yarn, llama3 are": dict(
    rope_scaling={'rope_type': 'longrope'}
  ),
  'max_position_embeddings in config.json': dict(
    rope_scaling={'rope_type': 'yarn', 'factor': 4.0}
  ),
  'a positive factor and a context': dict(
    rope_scaling={'rope_type': 'dynamic', 'factor': 4.0},
    max_position_embeddings=0,
  ),
  'part of each head': dict(partial_rotary_factor=0.5),
  'must be above 1': dict(rope_theta=0.0),
  'head of at most 16384': dict(
    rope_scaling={'rope_type': 'linear', 'factor': 2.0}, head_dim=2**39
  ),
  'factor in config.json': dict(rope_scaling={'rope_type': 'linear'}),
  'hidden_size in .* at least 0': dict(hidden_size=-3),
  'layer_types must be': dict(
    kind='qwen2',
    use_sliding_window=True,
    sliding_window=4,
    layer_types=['sliding_attention', 'full_attention'],
  ),
}


@pytest.mark.parametrize('rule', REFUSED)
def test_what_does_not_fit_is_refused(tmp_path, rule):
  model, params = gguf_cases.model()
  write(tmp_path, model, params, **REFUSED[rule])
  with pytest.raises(ValueError, match=rule):
    hf_decoders.load(hugging_face.read(tmp_path))


def test_a_tokenizer_must_fit_the_vocabulary(tmp_path):
  words = Tokenizer(models.WordLevel({'a': 0, 'b': 1}, unk_token='a'))
  words.save(str(tmp_path / 'tokenizer.json'))
  assert hugging_face.read_tokenizer(tmp_path, 2).token_to_id('b') == 1
  with pytest.raises(ValueError, match='does not fit the model'):
    hugging_face.read_tokenizer(tmp_path, 1)
  (tmp_path / 'tokenizer.json').write_text('{"model": 3}')
  with pytest.raises(ValueError, match='is no tokenizer'):
    hugging_face.read_tokenizer(tmp_path, 2)
