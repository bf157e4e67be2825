"""Logits of transformers on torch, on tiny random models of each kind."""

import jax.numpy as jnp
import numpy as np
import pytest

from lowbit import interop

pytestmark = [
  pytest.mark.slow,
  # torch and transformers warn of their own changes to come.
  pytest.mark.filterwarnings('ignore'),
]
SIZES = dict(
  vocab_size=96,
  hidden_size=32,
  num_hidden_layers=2,
  num_attention_heads=4,
  num_key_value_heads=2,
  intermediate_size=48,
  max_position_embeddings=128,
)
LLAMA3 = {
  'rope_type': 'llama3',
  'rope_theta': 10_000.0,
  'factor': 8.0,
  'low_freq_factor': 1.0,
  'high_freq_factor': 4.0,
  'original_max_position_embeddings': 64,
}
DECODERS = {
  'Llama': dict(attention_bias=True, mlp_bias=True),
  'Llama 3.1': dict(rope_parameters=LLAMA3, tie_word_embeddings=True),
  'Mistral': dict(sliding_window=5, head_dim=16),
  'Qwen2': dict(tie_word_embeddings=True),
  'Qwen2 window': dict(
    use_sliding_window=True, sliding_window=5, max_window_layers=1
  ),
  'Qwen3': dict(head_dim=16),
}


def random_model(transformers, torch, name, classes, config):
  """A model whose biases and gains are random, too."""
  torch.manual_seed(0)
  model = getattr(transformers, classes)(
    getattr(transformers, f'{name}Config')(**config)
  )
  with torch.no_grad():
    for p in model.parameters():
      p.add_(0.1 * torch.randn_like(p))
  return model.eval()


@pytest.mark.parametrize('case', DECODERS)
def test_decoders(tmp_path, case):
  import torch
  import transformers

  name = case.split()[0]
  theirs = random_model(
    transformers, torch, name, f'{name}ForCausalLM', SIZES | DECODERS[case]
  )
  theirs.save_pretrained(tmp_path, max_shard_size='40KB')
  tokens = np.random.default_rng(0).integers(0, 96, (2, 17))
  with torch.no_grad():
    want = theirs(torch.as_tensor(tokens)).logits.numpy()
  found = interop.load(tmp_path)
  got = found.model.apply({'params': found.params}, jnp.asarray(tokens))
  np.testing.assert_allclose(got, want, atol=1e-4)


def test_bert(tmp_path):
  import torch
  import transformers

  sizes = {k: v for k, v in SIZES.items() if k != 'num_key_value_heads'}
  theirs = random_model(transformers, torch, 'Bert', 'BertModel', sizes)
  theirs.save_pretrained(tmp_path)
  rng = np.random.default_rng(0)
  tokens, types = rng.integers(0, 96, (2, 9)), rng.integers(0, 2, (2, 9))
  mask = np.arange(9)[None] < np.asarray([[9], [5]])
  with torch.no_grad():
    want = theirs(
      torch.as_tensor(tokens),
      attention_mask=torch.as_tensor(mask.astype(int)),
      token_type_ids=torch.as_tensor(types),
    ).last_hidden_state.numpy()
  found = interop.load(tmp_path)
  got = found.model.apply(
    {'params': found.params},
    jnp.asarray(tokens),
    jnp.asarray(mask),
    jnp.asarray(types),
  )
  np.testing.assert_allclose(got[0], want[0], atol=1e-4)
  np.testing.assert_allclose(got[1, :5], want[1, :5], atol=1e-4)


def test_gpt2(tmp_path):
  import torch
  import transformers

  sizes = dict(vocab_size=96, n_embd=32, n_layer=2, n_head=4, n_positions=24)
  theirs = random_model(transformers, torch, 'GPT2', 'GPT2LMHeadModel', sizes)
  theirs.save_pretrained(tmp_path)
  tokens = np.random.default_rng(0).integers(0, 96, (2, 17))
  with torch.no_grad():
    want = theirs(torch.as_tensor(tokens)).logits.numpy()
  found = interop.load(tmp_path)
  got = found.model.apply({'params': found.params}, jnp.asarray(tokens))
  np.testing.assert_allclose(got, want, atol=1e-4)
