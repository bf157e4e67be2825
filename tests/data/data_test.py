import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from lowbit.data import embedded, text
from lowbit.models import decoder


def test_splits_do_not_overlap_and_cover_the_text():
  data = np.arange(10_037) % 251
  parts = {n: text.split(data, n) for n in text.SPLITS}
  assert sum(len(p) for ps in parts.values() for p in ps) == len(data)
  assert [len(parts[n]) for n in text.SPLITS] == [10, 5, 5]
  np.testing.assert_array_equal(parts['test'][0], data[1907:2007])
  with pytest.raises(ValueError, match='must be one of'):
    text.split(data, 'dev')


def test_embedded_text_is_english_and_large():
  texts = text.load()
  assert sum(map(len, texts)) > 5_000_000
  assert b'Elizabeth' in texts[0].tobytes()
  assert b'In the beginning' in texts[1].tobytes()
  rows = text.sample(texts, 'test', 16, 256)
  assert rows.shape == (16, 256)
  assert rows.dtype == np.int32
  np.testing.assert_array_equal(rows, text.sample(texts, 'test', 16, 256))
  assert len({row.tobytes() for row in rows}) == 16


def test_text_of_ones_own(tmp_path):
  path = tmp_path / 'mine.txt'
  path.write_text('Hello world. ' * 1000)
  assert len(text.load(str(path))[0]) == 13_000
  with pytest.raises(ValueError, match='not a file'):
    text.load(str(tmp_path / 'none'))
  path.write_bytes(b'')
  with pytest.raises(ValueError, match='is empty'):
    text.load(str(path))
  path.write_bytes(b'\xff\xfe\x00')
  with pytest.raises(ValueError, match='not UTF-8'):
    text.load(str(path))


def test_a_text_that_is_too_short():
  short = (np.zeros(1000, np.uint8),)
  with pytest.raises(ValueError, match='shorter than one sequence'):
    text.sample(short, 'calibration', 1, 256)
  with pytest.raises(ValueError, match='Ask for 1 to'):
    text.sample((np.zeros(10_000, np.uint8),), 'test', 99, 50)
  with pytest.raises(ValueError, match='No piece'):
    text.training_batch([short[0]], 0, 2, 2000, 0)


def test_training_batches_depend_on_step_and_seed_alone():
  pieces = [np.arange(500) % 256, np.arange(9000) % 7]
  batch = lambda *a: text.training_batch(pieces, *a)
  a = batch(3, 4, 16, 0)
  np.testing.assert_array_equal(a, batch(3, 4, 16, 0))
  assert (a != batch(4, 4, 16, 0)).any()
  assert (a != batch(3, 4, 16, 1)).any()


SMALL = {
  'width': 16,
  'layers': 1,
  'heads': 2,
  'kv_heads': 1,
  'head_dim': 8,
  'hidden': 24,
  'vocab': 256,
}


def small_file(path):
  model = decoder.Decoder(decoder.DecoderConfig(**SMALL))
  params = model.init(jax.random.key(0), jnp.zeros((1, 4), jnp.int32))['params']
  embedded.save(path, params, SMALL)
  return params


def test_weights_come_back_as_bfloat16(tmp_path):
  path = tmp_path / 'w.safetensors'
  params = small_file(path)
  config, loaded = embedded.load(str(path))
  assert config == decoder.DecoderConfig(**SMALL)
  want = jax.tree.map(
    lambda p: p.astype(jnp.bfloat16).astype(jnp.float32), params
  )
  jax.tree.map(np.testing.assert_array_equal, loaded, want)


def test_bad_weights(tmp_path):
  path = tmp_path / 'w.safetensors'
  with pytest.raises(ValueError, match='not a file'):
    embedded.load(str(path))
  small_file(path)
  whole = path.read_bytes()
  for raw in (whole[:-100], whole[:50], b'not safetensors at all', b''):
    path.write_bytes(raw)
    with pytest.raises(ValueError, match='not a whole safetensors'):
      embedded.load(str(path))
  path.write_bytes(whole)
  tensors = safetensors.numpy.load_file(path)
  config = {'config': embedded.json.dumps(SMALL)}
  head = tensors['head/kernel']
  for change, hint in (
    ({'head/kernel': head[:, :9]}, r'must be .*\(16, 256\)'),
    ({'head/kernel': head.astype(np.int32)}, 'int32'),
    ({'head/kernel': head * np.float32(np.nan).astype(head.dtype)}, 'NaN'),
    ({'extra': head}, r"unknown \['extra'\]"),
  ):
    safetensors.numpy.save_file({**tensors, **change}, path, metadata=config)
    with pytest.raises(ValueError, match=hint):
      embedded.load(str(path))
  del tensors['head/kernel']
  safetensors.numpy.save_file(tensors, path, metadata=config)
  with pytest.raises(ValueError, match=r"missing \['head/kernel'\]"):
    embedded.load(str(path))
  safetensors.numpy.save_file(tensors, path)
  with pytest.raises(ValueError, match='does not name the sizes'):
    embedded.load(str(path))
