"""lb.interop.load on files and folders, and what imports it."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lowbit as lb
from lowbit.models import encoder, gpt2
from tests.interop import gguf_cases, hf_decoders_test


def test_a_file_and_a_folder_give_the_same_model(tmp_path):
  model, params = gguf_cases.model()
  gguf_cases.write(tmp_path / 'm.gguf', model, params)
  hf_decoders_test.write(tmp_path, model, params)
  file, folder = (lb.interop.load(p) for p in (tmp_path / 'm.gguf', tmp_path))
  chex.assert_trees_all_equal(file.params, folder.params)
  assert file.tokenizer.encode('the').tokens == ['the']
  assert folder.tokenizer is None


def test_a_file_that_was_saved_is_loaded(tmp_path):
  model, params = gguf_cases.model()
  path = gguf_cases.write(tmp_path / 'a.gguf', model, params)
  lb.interop.save_gguf(
    tmp_path / 'b.gguf', model, params, lb.interop.GgufFile(path)
  )
  chex.assert_trees_all_equal(
    lb.interop.load(tmp_path / 'b.gguf').params, params
  )


def test_other_kinds_and_no_folder(tmp_path):
  (tmp_path / 'config.json').write_text('{"model_type": "mamba"}')
  (tmp_path / 'model.safetensors').write_bytes(b'\2' + bytes(7) + b'{}')
  with pytest.raises(ValueError, match="'mamba' .* not supported; 'llama'"):
    lb.interop.load(tmp_path)
  with pytest.raises(ValueError, match='no file of at most'):
    lb.interop.load(tmp_path / 'none')


def run(model, *args):
  params = model.init(jax.random.key(0), *args)['params']
  return params, lambda *a: model.apply({'params': params}, *a)


def test_an_encoder_does_not_see_what_is_masked():
  sizes = encoder.EncoderConfig(
    vocab=16, width=8, layers=1, heads=2, hidden=8, positions=6
  )
  tokens = jnp.arange(6)[None]
  mask = jnp.arange(6)[None] < 4
  _, states = run(encoder.Encoder(sizes), tokens)
  other = tokens.at[0, 5].set(9)
  a, b = (encoder.mean_pool(states(t, mask), mask) for t in (tokens, other))
  chex.assert_trees_all_close(a, b, atol=1e-6)
  np.testing.assert_allclose(np.linalg.norm(a), 1, rtol=1e-5)
  assert np.abs(states(tokens)[0, 0] - states(other)[0, 0]).max() > 1e-4
  with pytest.raises(ValueError, match='6 positions'):
    states(jnp.zeros((1, 7), jnp.int32))
  with pytest.raises(ValueError, match='`heads` divide'):
    encoder.EncoderConfig(width=8, heads=3)


def test_gpt2_is_causal_and_knows_its_positions():
  sizes = gpt2.GPT2Config(
    vocab=16, width=8, layers=1, heads=2, hidden=8, positions=6
  )
  tokens = jnp.asarray([[3, 3, 5, 5, 1, 2]])
  params, logits = run(gpt2.GPT2(sizes), tokens)
  assert 'head' not in params
  a, b = logits(tokens), logits(tokens.at[0, 4].set(9))
  chex.assert_trees_all_close(a[:, :4], b[:, :4], atol=1e-6)
  assert np.abs(a - b)[0, 4].max() > 1e-4
  assert np.abs(a[0, 0] - a[0, 1]).max() > 1e-4
  with pytest.raises(ValueError, match='6 positions'):
    logits(jnp.zeros((1, 7), jnp.int32))
  with pytest.raises(ValueError, match='`heads` must divide'):
    gpt2.GPT2Config(width=8, heads=3)
