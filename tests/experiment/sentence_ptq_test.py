"""configs/ptq/minilm.py on a small random BERT; MiniLM's own in minilm_test."""

import importlib.util
import json
import pathlib
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tokenizers

from lowbit import recipes
from lowbit.data import text
from lowbit.experiment import ptq, sentence_ptq, sentences
from lowbit.interop import hf_encoders, safetensors_file
from lowbit.models import encoder
from lowbit.transforms import structure

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
SIZES = encoder.EncoderConfig(
  vocab=257, width=32, layers=2, heads=2, hidden=64, positions=32
)


@pytest.fixture(scope='module')
def archive(tmp_path_factory):
  """A zip of a folder that Hugging Face would read."""
  folder = tmp_path_factory.mktemp('bert') / 'm'
  folder.mkdir()
  model = encoder.Encoder(SIZES)
  params = model.init(jax.random.key(0), jnp.zeros((1, 2), jnp.int32))['params']
  tensors = {}
  for ours, source in hf_encoders.sources(SIZES).items():
    value = np.asarray(structure.get(params, ours))
    tensors[source.name] = value.T if ours.endswith('kernel') else value
  safetensors_file.write(folder / 'model.safetensors', tensors)
  config = dict(
    model_type='bert',
    vocab_size=257,
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=64,
    max_position_embeddings=32,
  )
  (folder / 'config.json').write_text(json.dumps(config))
  alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
  ids = {token: i for i, token in enumerate(['[PAD]', *alphabet])}
  tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(ids, []))
  tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel()
  tokenizer.save(str(folder / 'tokenizer.json'))
  path = folder.parent / 'model.zip'
  with zipfile.ZipFile(path, 'w') as file:
    for part in folder.iterdir():
      file.write(part, f'm/{part.name}')
  return path


def get_config(path, table=()):
  file = ROOT / 'configs/ptq/minilm.py'
  spec = importlib.util.spec_from_file_location('minilm', file)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  config = module.get_config()
  config.model.path = str(path)
  small = dict(sequence=24, calibration=4, sentences=8, batch=4)
  config.update(small)
  config.table = tuple(module.run(*row) for row in table) or config.table
  return config


def test_a_table_of_formats(tmp_path, archive):
  table = (('floating',), ('nearest', 'int8@channel'), ('nearest', 'int2@g32'))
  job = sentence_ptq.Job(get_config(archive, table), tmp_path)
  rows = list(job.rows(lambda line: None))
  floating, int8, int2 = rows
  for key in ('cosine', 'least', 'rank'):
    assert floating[key] == pytest.approx(1, abs=1e-6)
    assert int2[key] < int8[key] < 1
  assert int8['cosine'] > 0.999
  # Look-up tables are coded, too: only norms and biases are in float.
  assert 2 < int2['bits_per_weight'] < 6
  assert len(int8['examples']) == 3
  # What is done is not done again, and all is shown.
  again = sentence_ptq.Job(get_config(archive, table), tmp_path)
  assert list(again.rows(lambda line: None)) == rows
  assert again.vectors is None
  assert job.table(rows).row_count == 3


def test_all_runs_of_the_config_are_known(archive):
  config = get_config(archive)
  for run in ptq.runs(config):
    rules = sentence_ptq.build(run).rules
    assert rules[0].weight == rules[-1].weight
  assert rules[0].pattern == sentence_ptq.TABLES
  assert (
    recipes.floating().rules
    == sentence_ptq.build(
      dict(recipe='floating', weight='', activation='')
    ).rules
  )


def test_sentences_are_whole_and_of_one_split():
  texts = text.load()
  found = sentences.cut(texts, 'test', 40)
  assert len(set(found)) == 40
  assert all(20 <= len(line) <= 200 for line in found)
  pieces = [p for t in texts for p in text.split(t, 'test')]
  decode = lambda p: ' '.join(p.tobytes().decode(errors='ignore').split())
  whole = ' '.join(map(decode, pieces))
  assert all(line in whole for line in found)
  with pytest.raises(ValueError, match='10000000 were asked for'):
    sentences.cut(texts, 'test', 10_000_000)


def test_ranks_tell_the_order_alone():
  reference = np.eye(4)[:3] + 0.1 * np.arange(12).reshape(3, 4)
  unit = lambda x: x / np.linalg.norm(x, axis=1, keepdims=True)
  turn = np.linalg.qr(np.random.default_rng(0).normal(size=(4, 4)))[0]
  found = sentence_ptq.fidelity(unit(reference) @ turn, unit(reference))
  assert found['rank'] == pytest.approx(1)  # All cosines are kept ...
  assert found['least'] <= found['cosine'] < 0.9  # ... and no vector is.


def test_bad_input(tmp_path, archive):
  config = get_config(archive)
  config.sentences = 6
  with pytest.raises(ValueError, match=r'`batch` 4 must divide .* 6'):
    sentence_ptq.Job(config, tmp_path)
  config = get_config(tmp_path / 'none.zip')
  with pytest.raises(ValueError, match='no folder or zip archive. Get MiniLM'):
    sentences.load(config)
  with zipfile.ZipFile(tmp_path / 'empty.zip', 'w') as file:
    file.writestr('a', 'b')
  config.model.path = str(tmp_path / 'empty.zip')
  with pytest.raises(ValueError, match='holds no config.json'):
    sentences.load(config)
