"""Block-wise streaming against the whole model at once, kills, and memory."""

import importlib.util
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lowbit import calibrate, operators, transforms
from lowbit.data import embedded
from lowbit.experiment import evaluate, language, ptq, streaming
from lowbit.models import decoder, decoder_parts
from tests.interop import gguf_cases

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
SMALL = {
  'vocab': 256,
  'width': 32,
  'layers': 2,
  'heads': 2,
  'kv_heads': 1,
  'head_dim': 16,
  'hidden': 48,
}


def write(path, sizes):
  model = decoder.Decoder(decoder.DecoderConfig(**sizes))
  init = jax.jit(model.init)
  params = init(jax.random.key(0), jnp.zeros((1, 4), jnp.int32))['params']
  embedded.save(path, params, sizes)
  return path


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
  return write(tmp_path_factory.mktemp('weights') / 'w.safetensors', SMALL)


def get_config(path, recipe='nearest', weight='int4@g16', activation=''):
  file = ROOT / 'configs/stream/default.py'
  spec = importlib.util.spec_from_file_location('stream', file)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  config = module.get_config()
  config.update(
    dict(recipe=recipe, weight=weight, activation=activation),
    sequence=24,
    calibration=4,
    windows=8,
    batch=4,
  )
  config.model.path = str(path)
  return config


def finish(config, out):
  job = streaming.Job(config, out)
  assert list(job.parts(lambda text: None)) == [p.name for p in job.pieces]
  return job.row(0.0)


@pytest.mark.parametrize('kind', ['plain', 'window'])
def test_pieces_one_after_another_are_the_decoder(kind):
  extra = {} if kind == 'plain' else {'window': 3, 'window_from': 1}
  config = decoder.DecoderConfig(**SMALL, **extra)
  model, tokens = decoder.Decoder(config), jnp.arange(20)[None] * 7
  params = model.init(jax.random.key(1), tokens)['params']
  x = tokens
  for piece in decoder_parts.cut(config):
    mine = {part: params[whole] for whole, part in piece.names}
    x = piece.module.apply({'params': mine}, x)
  np.testing.assert_array_equal(x, model.apply({'params': params}, tokens))


def test_what_cannot_be_cut_is_refused():
  for field in ('tied', 'scan_layers'):
    with pytest.raises(ValueError, match=f'{field}=True'):
      decoder_parts.cut(decoder.DecoderConfig(**{field: True}))


RECIPES = [
  pytest.param(('nearest', 'mxfp4', ''), marks=pytest.mark.slow),
  ('gptq', 'int3@g16', ''),
  ('awq', 'int4z@g16', ''),
  pytest.param(
    ('smoothquant', 'int8@channel', 'int8@token'), marks=pytest.mark.slow
  ),
  pytest.param(
    ('quarot', 'int4@channel', 'int4@token'), marks=pytest.mark.slow
  ),
]


@pytest.mark.parametrize('case', RECIPES, ids=lambda c: c[0])
def test_the_same_as_the_whole_model_at_once(case, weights, tmp_path):
  config = get_config(weights, *case)
  row = finish(config, tmp_path)
  model, params = streaming.load(tmp_path)
  found = language.load(config)
  run = dict(zip(('recipe', 'weight', 'activation'), case))
  whole = calibrate.quantize_model(
    found.model, found.params, ptq.build(run), [found.calibration]
  )
  assert jax.tree.structure(params) == jax.tree.structure(operators.pack(whole))
  dense = lambda tree: jax.tree.leaves(operators.decode(tree))
  for mine, theirs in zip(dense(params), dense(whole), strict=True):
    # One float operation in another order may tip a code.
    same = np.isclose(mine, theirs, rtol=1e-4, atol=1e-6)
    assert same.mean() > 0.995
  reference = evaluate.reference(found.model, found.params, [found.test])
  scores = evaluate.score(found.model, whole, reference)
  bits = scores.bits_per_token
  assert row['bits_per_byte'] == pytest.approx(bits.mean(), abs=2e-3)
  assert row['kl'] == pytest.approx(scores.kl_nats.mean(), rel=0.05, abs=1e-5)
  assert row['bits_per_weight'] == operators.base.bits_per_weight(whole)
  assert row['delta'] != 0
  logits = calibrate.apply(model, params, found.test[:1])
  wanted = calibrate.apply(found.model, whole, found.test[:1])
  np.testing.assert_allclose(logits, wanted, atol=0.1)


class Killed(Exception):
  pass


@pytest.mark.parametrize('step', ['write_part', 'write_streams'])
def test_a_killed_run_goes_on_and_loses_nothing(
  step, weights, tmp_path, monkeypatch
):
  config = get_config(weights, 'gptq', 'int3@g16')
  wanted = finish(config, tmp_path / 'whole')
  job = streaming.Job(config, tmp_path / 'out')
  real, calls = getattr(job.store, step), []

  def third(*args):
    calls.append(args)
    if len(calls) == 3:
      raise Killed
    return real(*args)

  monkeypatch.setattr(job.store, step, third)
  with pytest.raises(Killed):
    list(job.parts(lambda text: None))
  again, said = streaming.Job(config, tmp_path / 'out'), []
  assert again.streams.done == 2
  list(again.parts(said.append))
  assert [text.split()[0] for text in said] == ['layers_1', 'head']
  assert again.row(0.0) == wanted
  a, b = (streaming.load(tmp_path / name)[1] for name in ('whole', 'out'))
  jax.tree.map(np.testing.assert_array_equal, a, b)


def test_a_folder_of_another_run_is_refused(weights, tmp_path):
  finish(get_config(weights), tmp_path)
  with pytest.raises(ValueError, match="weight 'int4@g16', not 'int8@channel'"):
    streaming.Job(get_config(weights, weight='int8@channel'), tmp_path)


def test_damaged_streams_are_refused(weights, tmp_path):
  config = get_config(weights)
  next(streaming.Job(config, tmp_path).parts(lambda text: None))
  path = tmp_path / 'streams-1'
  data = bytearray(path.read_bytes())
  data[-1] ^= 1
  path.write_bytes(data)
  with pytest.raises(ValueError, match='damaged'):
    streaming.Job(config, tmp_path)


def test_what_is_not_finished_or_no_run_is_not_loaded(weights, tmp_path):
  with pytest.raises(ValueError, match=r'plan\.json'):
    streaming.load(tmp_path)
  next(streaming.Job(get_config(weights), tmp_path).parts(lambda text: None))
  with pytest.raises(ValueError, match='not a finished checkpoint'):
    streaming.load(tmp_path)


def test_bad_configs_fail_before_anything_is_written(weights, tmp_path):
  bad = get_config(weights)
  bad.batch = 3
  with pytest.raises(ValueError, match='multiple of `config.batch`'):
    streaming.Job(bad, tmp_path)
  tied = get_config(write(tmp_path / 't.safetensors', SMALL | {'tied': True}))
  tied.model.untie = False
  with pytest.raises(ValueError, match='untie its head'):
    streaming.Job(tied, tmp_path)
  assert not (tmp_path / 'plan.json').exists()


def test_a_tied_gguf_file_streams_with_a_head_of_its_own(tmp_path):
  path = tmp_path / 'm.gguf'
  gguf_cases.write(path, *gguf_cases.model(tied=True))
  finish(get_config(path), tmp_path / 'out')
  model, params = streaming.load(tmp_path / 'out')
  assert not model.config.tied
  table = params['embed']['embedding']
  head = operators.as_operator(params['head']['kernel'])
  whole = transforms.untie({'embed': params['embed']})
  want = operators.as_operator(whole['head']['kernel']).dense()
  assert head.shape == table.shape[::-1]
  assert np.abs(head.dense() - want).max() < np.abs(want).max() / 7


def run(out, *flags):
  return subprocess.Popen(
    [sys.executable, str(ROOT / 'scripts/stream.py'), f'--out={out}', *flags],
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
    env={**os.environ, 'JAX_PLATFORMS': 'cpu', 'COLUMNS': '120'},
  )


def said(process):
  text, _ = process.communicate(timeout=600)
  return process.returncode, text


@pytest.mark.slow
def test_the_script_under_sigkill(tmp_path):
  whole, out = tmp_path / 'whole', tmp_path / 'out'
  assert said(run(whole))[0] == 0
  for done in (2, 5):
    process = run(out)
    while not (out / f'streams-{done}').exists():
      assert process.poll() is None, said(process)
      time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert said(process)[0] == -signal.SIGKILL
  code, text = said(run(out))
  assert code == 0, text
  assert int(re.search(r'(\d+) of 8 parts found', text)[1]) >= 5
  read = lambda p: json.loads((p / 'results.jsonl').read_text())
  a, b = read(whole), read(out)
  assert a | {'seconds': 0} == b | {'seconds': 0}


def peak(path, out):
  code, text = said(
    run(
      out,
      f'--config.model.path={path}',
      '--config.recipe=nearest',
      '--config.weight=int4@g64',
      '--config.windows=8',
      '--config.calibration=8',
      '--config.sequence=64',
    )
  )
  assert code == 0, text
  words = text.split()
  megabyte = lambda name: int(words[words.index(name) + 1])
  return megabyte('process:'), megabyte('float32:')


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_layers(tmp_path):
  sizes = SMALL | {'width': 512, 'heads': 8, 'head_dim': 64, 'hidden': 2048}
  few = write(tmp_path / 'few.safetensors', sizes | {'layers': 3})
  many = write(tmp_path / 'many.safetensors', sizes | {'layers': 27})
  (a, part), (b, _) = peak(few, tmp_path / 'a'), peak(many, tmp_path / 'b')
  assert part > 10
  assert b - a < 2 * part, (a, b, part)  # All in float32 is 24 parts more.
