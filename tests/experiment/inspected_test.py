"""Models of others in scripts/inspect_model.py."""

import json
import os
import pathlib
import subprocess
import sys

import chex
import numpy as np
import pytest
import safetensors.numpy

from lowbit.experiment import inspected, inspection
from lowbit.interop import gguf_file, gguf_tokenizer
from tests.interop import gguf_cases, hf_cases, hf_decoders_test, hf_vit_test

SCRIPT = pathlib.Path(__file__).parents[2] / 'scripts/inspect_model.py'


@pytest.fixture(autouse=True)
def _few_tokens(monkeypatch):
  monkeypatch.setattr(inspected, 'LENGTH', 16)  # Of 12 positions.


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """A decoder's folder, its GGUF file beside it."""
  path = tmp_path_factory.mktemp('model')
  model, params = gguf_cases.model()
  gguf_cases.write(path / 'm.gguf', model, params)
  hf_decoders_test.write(path, model, params)
  tokenizer = gguf_tokenizer.build(gguf_file.GgufFile(path / 'm.gguf'))
  tokenizer.save(str(path / 'tokenizer.json'))
  return path


def test_a_folder_is_looked_at_as_its_file_is(folder):
  theirs, ours = (
    inspected.read(str(p), 1) for p in (folder / 'm.gguf', folder)
  )
  assert theirs[1] == ours[1]
  assert {'layers_1/mlp/up/kernel', 'head/kernel'} <= set(ours[1])
  chex.assert_trees_all_equal(theirs[0], ours[0])
  assert inspected.read(str(folder), 0)[1] == {}


@pytest.mark.parametrize('kind', ['gpt2', 'bert'])
def test_windows_are_no_longer_than_the_positions(folder, tmp_path, kind):
  vocab = len(gguf_cases.TOKENS)
  tensors, config = {
    'gpt2': (hf_cases.gpt2, hf_cases.GPT2),
    'bert': (hf_cases.bert, hf_cases.BERT),
  }[kind]
  hf_cases.write(tmp_path, tensors(vocab), config, vocab_size=vocab)
  assert inspected.read(str(tmp_path), 1)[1] == {}  # No tokenizer.
  words = (folder / 'tokenizer.json').read_bytes()
  (tmp_path / 'tokenizer.json').write_bytes(words)
  assert 'layers_1/up/kernel' in inspected.read(str(tmp_path), 1)[1]


def test_weights_without_text(tmp_path):
  hf_vit_test.write(tmp_path, hf_vit_test.tensors())
  weights, inputs = inspected.read(str(tmp_path), 1)
  assert inputs == {}
  found = inspection.inspect(weights, ['int8@channel'])
  paths = {r.path for r in found.rows}
  assert {'patches/kernel', 'layers_1/query/kernel', 'head/kernel'} <= paths
  file = tmp_path / 'w.safetensors'
  safetensors.numpy.save_file({'w': np.ones((4, 4), np.float32)}, file)
  weights, inputs = inspected.read(str(file), 1)
  assert list(weights) == ['w']
  assert inputs == {}


def test_what_is_no_model_is_refused(tmp_path):
  with pytest.raises(ValueError, match='config.json'):
    inspected.read(str(tmp_path), 1)
  with pytest.raises(ValueError, match='must end in .safetensors'):
    inspected.read(str(tmp_path / 'none.bin'), 1)
  hf_cases.write(tmp_path, hf_cases.bert(9), {'model_type': 'mamba'})
  with pytest.raises(ValueError, match="'mamba' .* is not supported"):
    inspected.read(str(tmp_path), 1)


def test_the_script_on_a_folder(folder, tmp_path):
  done = subprocess.run(
    [
      sys.executable,
      str(SCRIPT),
      str(folder),
      f'--out={tmp_path}',
      '--layers=mlp/up',
      '--specs=int8@channel,int4@g32',
      '--windows=1',
    ],
    capture_output=True,
    text=True,
    env={**os.environ, 'JAX_PLATFORMS': 'cpu', 'COLUMNS': '200'},
  )
  assert done.returncode == 0, done.stderr
  assert 'layers_1/mlp/up/kernel' in done.stdout
  lines = (tmp_path / 'inspect.jsonl').read_text().splitlines()
  rows = [json.loads(line) for line in lines]
  assert [r['path'] for r in rows] == [
    f'layers_{i}/mlp/up/kernel' for i in range(2)
  ]
  assert all(r['inputs']['absmax_over_std'] > 1 for r in rows)
  assert (tmp_path / 'inspect.png').stat().st_size > 5000
