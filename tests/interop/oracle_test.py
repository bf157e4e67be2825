"""Logits of transformers on torch, on tiny random models of each kind."""

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

import lowbit as lb
from lowbit import interop, operators
from lowbit.interop import compressed_tensors
from tests.interop import gguf_cases

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
  'factor': 8.0,
  'low_freq_factor': 1.0,
  'high_freq_factor': 4.0,
  'original_max_position_embeddings': 64,
}
YARN = {
  'rope_type': 'yarn',
  'factor': 4.0,
  'original_max_position_embeddings': 32,  # A quarter of SIZES'.
}
DECODERS = {
  'Llama': dict(attention_bias=True, mlp_bias=True),
  'Llama 3.1': dict(rope_scaling=LLAMA3, tie_word_embeddings=True),
  'Llama linear': dict(rope_scaling={'rope_type': 'linear', 'factor': 3.0}),
  'Llama dynamic': dict(
    rope_scaling={'rope_type': 'dynamic', 'factor': 2.0},
    max_position_embeddings=8,  # Of 17 tokens.
  ),
  'Llama yarn': dict(rope_scaling=YARN),
  'Qwen2 yarn': dict(
    rope_scaling=YARN
    | {'beta_fast': 6, 'beta_slow': 2, 'attention_factor': 1.4}
  ),
  'Qwen3 yarn': dict(
    head_dim=16,
    rope_scaling=YARN
    | {'mscale': 1.5, 'mscale_all_dim': 0.7, 'truncate': False},
  ),
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


@pytest.mark.parametrize('case', ['ForImageClassification', 'Model'])
def test_vit(tmp_path, case):
  import torch
  import transformers

  keys = ('hidden_size', 'num_hidden_layers', 'num_attention_heads')
  sizes = {k: SIZES[k] for k in (*keys, 'intermediate_size')}
  sizes |= dict(image_size=(24, 16), patch_size=8, num_labels=5)
  theirs = random_model(transformers, torch, 'ViT', f'ViT{case}', sizes)
  theirs.save_pretrained(tmp_path)
  images = np.random.default_rng(0).standard_normal((2, 24, 16, 3), np.float32)
  with torch.no_grad():
    out = theirs(torch.as_tensor(images.transpose(0, 3, 1, 2).copy()))
  want = out.last_hidden_state if case == 'Model' else out.logits
  found = interop.load(tmp_path)
  got = found.model.apply({'params': found.params}, jnp.asarray(images))
  np.testing.assert_allclose(got, want.numpy(), atol=1e-4)


SPECS = ['int4@g32', 'int4@channel', 'int3@g16', 'int8@channel', 'mxfp4']


def as_torch(value):
  import torch

  if value.dtype == ml_dtypes.float8_e4m3fn:
    return torch.as_tensor(value.view(np.uint8)).view(torch.float8_e4m3fn)
  return torch.as_tensor(np.array(value))


@pytest.mark.parametrize('spec', [*SPECS, 'e4m3@channel'])
def test_compressed_tensors_decodes_what_we_write(spec):
  from compressed_tensors.compressors import BaseCompressor
  from compressed_tensors.quantization import (
    QuantizationArgs,
    QuantizationScheme,
  )

  w = 0.05 * jax.random.normal(jax.random.key(0), (6, 64))
  q = lb.quantize(w, spec)
  tensors, scheme = compressed_tensors.encode(q)
  found = BaseCompressor.get_value_from_registry(scheme.format).decompress(
    {name: as_torch(value) for name, value in tensors.items()},
    QuantizationScheme(
      targets=['Linear'], weights=QuantizationArgs(**scheme.weights())
    ),
  )
  got = found['weight'].float().numpy()
  np.testing.assert_array_equal(got, lb.dequantize(q))


def test_compressed_tensors_decodes_nvfp4():
  """Its parts in float32; the whole rounds the weights to bfloat16."""
  import torch
  from compressed_tensors.compressors import BaseCompressor
  from compressed_tensors.compressors.nvfp4 import helpers
  from compressed_tensors.quantization import (
    QuantizationArgs,
    QuantizationScheme,
  )
  from compressed_tensors.quantization.lifecycle import forward

  w = 0.05 * jax.random.normal(jax.random.key(0), (6, 64))
  q = compressed_tensors.settle(lb.quantize(w, 'nvfp4'))
  tensors, scheme = compressed_tensors.encode(q)
  tensors = {name: as_torch(value) for name, value in tensors.items()}
  args = QuantizationArgs(**scheme.weights())
  got = forward.dequantize(
    helpers.unpack_fp4_from_uint8(
      tensors['weight_packed'], *q.shape, torch.float32
    ),
    tensors['weight_scale'].float(),
    args=args,
    global_scale=tensors['weight_global_scale'],
  )
  np.testing.assert_array_equal(got.numpy(), lb.dequantize(q))
  found = BaseCompressor.get_value_from_registry(scheme.format).decompress(
    tensors, QuantizationScheme(targets=['Linear'], weights=args)
  )
  got = found['weight'].float().numpy()
  np.testing.assert_array_equal(got, lb.dequantize(q, jnp.bfloat16))


@pytest.mark.parametrize('spec', ['int4@g32', 'int8@channel', 'mxfp4', 'nvfp4'])
def test_transformers_runs_what_we_write(tmp_path, spec):
  import torch
  import transformers

  model, params = gguf_cases.model()
  tokens = jax.random.randint(jax.random.key(0), (2, 9), 0, model.config.vocab)
  recipe = lb.recipes.nearest(spec, keep=('embed/embedding',))
  params = lb.quantize_model(model, params, recipe, [tokens])
  params = compressed_tensors.settle(params)
  schemes = compressed_tensors.save(tmp_path, model, operators.pack(params))
  assert len(schemes) == 15
  floats = spec in (
    'mxfp4',
    'nvfp4',
  )  # Decompressed to bfloat16 by the package.
  how = transformers.CompressedTensorsConfig(run_compressed=not floats)
  theirs = transformers.AutoModelForCausalLM.from_pretrained(
    tmp_path, quantization_config=how
  )
  theirs = theirs.float() if floats else theirs
  with torch.no_grad():
    want = theirs(torch.as_tensor(np.array(tokens))).logits.float().numpy()
  if floats:
    is_op = lambda x: isinstance(x, operators.Operator)
    low = lambda x: x.dense().astype(jnp.bfloat16).astype(jnp.float32)
    params = jax.tree.map(
      lambda x: low(x) if is_op(x) else x, params, is_leaf=is_op
    )
  got = lb.apply(model, params, tokens)
  np.testing.assert_allclose(got, want, atol=1e-4 * np.abs(want).max())
