"""Damaged vocabularies and odd sizes: ValueErrors, and nothing else."""

import dataclasses
import json

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from lowbit.interop import (
  gguf_decoders,
  gguf_encoders,
  gguf_file,
  gguf_gpt2,
  gguf_tokenizer,
  hf_decoders,
  hf_encoders,
  hf_gpt2,
  hf_vit,
  hugging_face,
)
from tests.interop import (
  gguf_cases,
  gguf_others_test,
  gguf_tokenizer_test,
  hf_cases,
  hf_decoders_test,
  hf_vit_test,
  mutations,
)

WORDS = dict.fromkeys('▁abc', -9) | {'ab': -1, '▁ab': -2}
VOCABULARIES = {
  'pairs': gguf_cases.TOKENIZER
  | {
    'tokenizer.ggml.tokens': ['a', 'b', 'c', 'Ġ', 'ab', '<s>'],
    'tokenizer.ggml.merges': ['a b'],
    'tokenizer.ggml.token_type': [1, 1, 1, 1, 1, 3],
    'tokenizer.ggml.pre': 'default',
  },
  'sentencepiece': {
    'tokenizer.ggml.model': 'llama',
    'tokenizer.ggml.tokens': ['<unk>', '<s>', *WORDS],
    'tokenizer.ggml.scores': [0.0, 0.0, *map(float, WORDS.values())],
    'tokenizer.ggml.token_type': [2, 3, *[1] * len(WORDS)],
    'tokenizer.ggml.unknown_token_id': 0,
    'tokenizer.ggml.add_space_prefix': True,
  },
  'wordpiece': gguf_tokenizer_test.wordpiece(gguf_tokenizer_test.WORDS)
  | {'tokenizer.ggml.bos_token_id': 2},
}


def fuzz_vocabulary(tmp_path, kind, examples):
  fields = VOCABULARIES[kind]
  rows = len(fields['tokenizer.ggml.tokens'])
  table = {'token_embd.weight': np.zeros((rows, 8))}
  path = gguf_cases.write_file(tmp_path / 'm.gguf', 'llama', fields, table)
  raw, seen = path.read_bytes(), set()

  def build():
    found = gguf_tokenizer.build(gguf_file.GgufFile(path))
    try:
      found.decode(found.encode('ab é [MASK] <s>c').ids)
    except Exception as error:
      # What `tokenizers` raises itself is one of its own, not a crash.
      if type(error) is not Exception:
        raise

  @hypothesis.settings(max_examples=examples)
  @hypothesis.given(mutations.damaged(raw))
  def run(changed):
    path.write_bytes(changed)
    seen.add(mutations.only_value_errors(build))

  run()
  assert seen == {True, False}


@pytest.mark.parametrize('kind', VOCABULARIES)
def test_damaged_vocabularies(tmp_path, kind):
  fuzz_vocabulary(tmp_path, kind, 100)


@pytest.mark.slow
@pytest.mark.parametrize('kind', VOCABULARIES)
def test_thousands_of_damaged_vocabularies(tmp_path, kind):
  fuzz_vocabulary(tmp_path, kind, 5000)


ODD = st.sampled_from(
  [0, 1, 2, 3, 7, 2**31 - 1, -1.0, 0.0, 0.5, 1e30, float('nan'), True, '', 'x']
)
YARN = {
  'rope_type': 'yarn',
  'factor': 4.0,
  'original_max_position_embeddings': 16,
  'beta_fast': 32.0,
  'beta_slow': 1.0,
  'attention_factor': 1.0,
  'mscale': 1.0,
  'mscale_all_dim': 1.0,
}
LLAMA = {
  'model_type': 'llama',
  'vocab_size': 266,
  'hidden_size': 32,
  'num_hidden_layers': 2,
  'num_attention_heads': 4,
  'num_key_value_heads': 2,
  'head_dim': 8,
  'intermediate_size': 64,
  'rms_norm_eps': 1e-5,
  'rope_theta': 1e4,
  'partial_rotary_factor': 1.0,
  'max_position_embeddings': 64,
}


def odd_values(config):
  """Some of a config's values replaced."""
  keys = st.sampled_from([k for k in config if k != 'model_type'])
  return st.dictionaries(keys, ODD, min_size=1, max_size=2).map(
    lambda changes: config | changes
  )


def odd_llamas():
  kinds = st.sampled_from(['yarn', 'dynamic', 'linear', 'llama3', 'x', 3])
  scaling = st.tuples(odd_values(YARN), kinds).map(
    lambda both: both[0] | {'rope_type': both[1]}
  )
  return st.tuples(odd_values(LLAMA), scaling).map(
    lambda both: both[0] | {'rope_scaling': both[1]}
  )


VIT = {'model_type': 'vit'} | hf_vit_test.SIZES | {'qkv_bias': True}
FOLDERS = {
  'llama': (odd_llamas(), hf_decoders.config),
  'gpt2': (odd_values(hf_cases.GPT2 | {'vocab_size': 9}), hf_gpt2.config),
  'bert': (odd_values(hf_cases.BERT | {'vocab_size': 9}), hf_encoders.config),
  'vit': (odd_values(VIT), hf_vit.config),
}


@pytest.mark.parametrize('kind', FOLDERS)
def test_odd_sizes_in_folders(tmp_path, kind):
  _, params = gguf_cases.model()
  tensors = {
    'llama': lambda: hf_decoders_test.tensors(params),
    'gpt2': lambda: hf_cases.gpt2(9),
    'bert': lambda: hf_cases.bert(9),
    'vit': hf_vit_test.tensors,
  }[kind]()
  hf_cases.write(tmp_path, tensors, {'model_type': kind})
  folder, (configs, read) = hugging_face.read(tmp_path), FOLDERS[kind]
  seen = set()

  @hypothesis.settings(max_examples=300)
  @hypothesis.given(configs)
  def run(config):
    config = json.loads(json.dumps(config))
    found = dataclasses.replace(folder, config=config)
    seen.add(mutations.only_value_errors(lambda: read(found)))

  run()
  assert seen == {True, False}


SIZES = {
  'embedding_length': 32,
  'block_count': 2,
  'attention.head_count': 4,
  'attention.head_count_kv': 2,
  'attention.key_length': 8,
  'attention.layer_norm_epsilon': 1e-5,
  'attention.causal': False,
  'feed_forward_length': 64,
  'context_length': 64,
  'rope.freq_base': 1e4,
  'rope.dimension_count': 8,
  'rope.scaling.factor': 4.0,
  'rope.scaling.attn_factor': 1.0,
  'rope.scaling.original_context_length': 16,
  'rope.scaling.yarn_beta_fast': 32.0,
  'rope.scaling.yarn_beta_slow': 1.0,
}
FILES = {
  'llama': gguf_decoders.config,
  'gpt2': gguf_gpt2.config,
  'bert': gguf_encoders.config,
}


@pytest.mark.parametrize('kind', FILES)
def test_odd_sizes_in_files(tmp_path, kind):
  model, params = gguf_cases.model()
  tensors = {
    'llama': lambda: gguf_cases.tensors(model.config, params, True),
    'gpt2': gguf_others_test.gpt2,
    'bert': gguf_others_test.bert,
  }[kind]()
  path = gguf_cases.write_file(tmp_path / 'm.gguf', kind, {}, tensors)
  file, seen = gguf_file.GgufFile(path), set()

  @hypothesis.settings(max_examples=300)
  @hypothesis.given(
    odd_values(SIZES), st.sampled_from(['yarn', 'linear', 'none', 'x', 3])
  )
  def run(sizes, scaling):
    file.fields = {'general.architecture': kind} | {
      f'{kind}.{key}': value
      for key, value in (sizes | {'rope.scaling.type': scaling}).items()
    }
    seen.add(mutations.only_value_errors(lambda: FILES[kind](file)))

  run()
  assert seen == {True, False}
