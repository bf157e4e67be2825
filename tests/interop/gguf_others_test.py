"""GPT-2 and BERT in GGUF files: the same models as in folders.

Names come from the package gguf, whose map of Hugging Face's is llama.cpp's;
that folders are read right, oracle_test.py shows.
"""

import dataclasses

import chex
import gguf
import jax.numpy as jnp
import numpy as np
import pytest

import lowbit as lb
from lowbit.interop import gguf_encoders, gguf_file, gguf_gpt2
from tests.interop import gguf_cases, hf_cases

VOCAB = len(gguf_cases.TOKENS)
TOKENS = jnp.asarray([[1, 5, 2, 40]])
LOAD = {'gpt2': gguf_gpt2.load, 'bert': gguf_encoders.load}


def renamed(tensors, architecture):
  """The tensors by GGUF's names, matrices [out, in]."""
  names = gguf.get_tensor_name_map(architecture, hf_cases.LAYERS)
  turn = lambda name, x: x.T if name.startswith('h.') and x.ndim == 2 else x
  return {
    names.get_name(name, try_suffixes=('.weight', '.bias')): turn(name, x)
    for name, x in tensors.items()
  }


def write(path, architecture, tensors, **fields):
  sizes = {
    'embedding_length': hf_cases.WIDTH,
    'block_count': hf_cases.LAYERS,
    'attention.head_count': 2,
    'feed_forward_length': hf_cases.HIDDEN,
    'attention.layer_norm_epsilon': 1e-5 if architecture == 'gpt2' else 1e-12,
    'context_length': hf_cases.POSITIONS,
  }
  sizes = {f'{architecture}.{key}': value for key, value in sizes.items()}
  return gguf_cases.write_file(
    path, architecture, sizes | gguf_cases.TOKENIZER | fields, tensors
  )


def gpt2():
  return renamed(hf_cases.gpt2(VOCAB), gguf.MODEL_ARCH.GPT2)


def bert():
  return renamed(hf_cases.bert(VOCAB), gguf.MODEL_ARCH.BERT)


def same(file, folder):
  """Both models have the same params, sizes and outputs."""
  chex.assert_trees_all_equal(file[1], folder[1])
  sizes = file[0].config
  np.testing.assert_allclose(
    sizes.norm_eps, folder[0].config.norm_eps, rtol=1e-6
  )
  eps = folder[0].config.norm_eps
  assert dataclasses.replace(sizes, norm_eps=eps) == folder[0].config
  out = [model.apply({'params': p}, TOKENS) for model, p in (file, folder)]
  chex.assert_trees_all_close(*out, atol=1e-5)


def load(path):
  found = lb.interop.load(path)
  return found.model, found.params


def test_gpt2_is_that_of_its_folder(tmp_path):
  path = write(tmp_path / 'm.gguf', 'gpt2', gpt2())
  folder = hf_cases.write(
    tmp_path, hf_cases.gpt2(VOCAB), hf_cases.GPT2, vocab_size=VOCAB
  )
  same(load(path), load(folder))


def test_a_head_of_its_own(tmp_path):
  head = np.random.default_rng(1).standard_normal((VOCAB, 16), np.float32)
  path = write(tmp_path / 'm.gguf', 'gpt2', gpt2() | {'output.weight': head})
  theirs = {f'transformer.{k}': v for k, v in hf_cases.gpt2(VOCAB).items()}
  folder = hf_cases.write(
    tmp_path,
    theirs | {'lm_head.weight': head},
    hf_cases.GPT2,
    vocab_size=VOCAB,
    tie_word_embeddings=False,
  )
  model, params = load(path)
  same((model, params), load(folder))
  tied = model.clone(config=dataclasses.replace(model.config, tied=True))
  rest = {k: v for k, v in params.items() if k != 'head'}
  near = np.allclose(
    model.apply({'params': params}, TOKENS),
    tied.apply({'params': rest}, TOKENS),
    atol=0.1,
  )
  assert not near


@pytest.mark.parametrize('fused', [False, True])
def test_bert_is_that_of_its_folder(tmp_path, fused):
  held = bert()
  if fused:
    for i in range(hf_cases.LAYERS):
      for kind in ('weight', 'bias'):
        parts = [held.pop(f'blk.{i}.attn_{n}.{kind}') for n in 'qkv']
        held[f'blk.{i}.attn_qkv.{kind}'] = np.concatenate(parts)
  held |= {'cls.weight': np.ones((16, 16), np.float32)}
  path = write(
    tmp_path / 'm.gguf', 'bert', held, **{'bert.attention.causal': False}
  )
  folder = hf_cases.write(
    tmp_path, hf_cases.bert(VOCAB), hf_cases.BERT, vocab_size=VOCAB
  )
  same(gguf_encoders.load(gguf_file.GgufFile(path)), load(folder))


ODD = np.ones((3, 5), np.float32)
REFUSED = {
  r"missing \['blk.1.ffn_up.weight'\]": ({'blk.1.ffn_up.weight': None}, {}),
  r"unknown \['odd'\]": ({'odd': ODD}, {}),
  'blk.1.ffn_up.weight .* has the shape': ({'blk.1.ffn_up.weight': ODD}, {}),
  'position_embd.weight of 2 axes': ({'position_embd.weight': None}, {}),
  'claims 999 layers': ({}, {'block_count': 999}),
  '`heads`': ({}, {'attention.head_count': 3}),
  'feed_forward_length .* at least 0': ({}, {'feed_forward_length': 'wide'}),
}


@pytest.mark.parametrize('architecture', LOAD)
@pytest.mark.parametrize('rule', REFUSED)
def test_what_does_not_fit_is_refused(tmp_path, architecture, rule):
  tensors, fields = REFUSED[rule]
  held = {'gpt2': gpt2, 'bert': bert}[architecture]() | tensors
  held = {k: v for k, v in held.items() if v is not None}
  fields = {f'{architecture}.{k}': v for k, v in fields.items()}
  path = write(tmp_path / 'm.gguf', architecture, held, **fields)
  with pytest.raises(ValueError, match=rule):
    LOAD[architecture](gguf_file.GgufFile(path))


def test_what_a_model_cannot_do_is_refused(tmp_path):
  held = gpt2()
  held['blk.0.attn_qkv.weight'] = np.ones((47, 16), np.float32)  # No thirds.
  path = write(tmp_path / 'm.gguf', 'gpt2', held)
  with pytest.raises(ValueError, match='attn_qkv.weight .* has the shape'):
    gguf_gpt2.load(gguf_file.GgufFile(path))
  causal = {'bert.attention.causal': True}
  path = write(tmp_path / 'b.gguf', 'bert', bert(), **causal)
  with pytest.raises(ValueError, match='attention.causal .* is True'):
    gguf_encoders.load(gguf_file.GgufFile(path))


def test_other_architectures_are_refused(tmp_path):
  path = write(tmp_path / 'm.gguf', 'mamba', gpt2())
  with pytest.raises(ValueError, match="'mamba'.*'bert', 'gpt2' is"):
    lb.interop.load(path)
