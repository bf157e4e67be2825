"""Safetensors: read as the package safetensors reads them, or refused."""

import json
import struct

import hypothesis
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from lowbit.interop import safetensors_file
from tests.interop import mutations

X = np.random.default_rng(0).standard_normal((4, 6), np.float32)
DTYPES = [
  np.float64,
  np.float32,
  np.float16,
  ml_dtypes.bfloat16,
  np.int32,
  np.uint8,
  np.bool_,
]


def test_tensors_are_those_of_the_package(tmp_path):
  tensors = {f't{i}': X.astype(d) for i, d in enumerate(DTYPES)}
  tensors['none'] = np.zeros((0, 3), np.float32)
  tensors['number'] = np.array(3.0, np.float32)
  path = tmp_path / 'w.safetensors'
  safetensors.numpy.save_file(tensors, path, metadata={'a': 'b'})
  file = safetensors_file.SafetensorsFile(path)
  assert file.metadata == {'a': 'b'}
  want = safetensors.numpy.load_file(path)
  assert set(file.shapes) == set(want)
  for name, value in want.items():
    assert file.raw(name).dtype == value.dtype
    np.testing.assert_array_equal(file.raw(name), value)
    assert file.read(name).dtype == np.float32


@pytest.mark.parametrize(
  'name, dtype',
  [
    ('F8_E4M3', ml_dtypes.float8_e4m3fn),
    ('F8_E5M2', ml_dtypes.float8_e5m2),
    ('F8_E8M0', ml_dtypes.float8_e8m0fnu),
  ],
)
def test_eight_bit_floats(tmp_path, name, dtype):
  codes = np.arange(8, 56, dtype=np.uint8).reshape(6, 8)
  path = tmp_path / 'w.safetensors'
  path.write_bytes(build({'w': entry(name, [6, 8], [0, 48])}, codes.tobytes()))
  found = safetensors_file.SafetensorsFile(path).read('w')
  want = codes.view(dtype).astype(np.float32)
  np.testing.assert_array_equal(found, want)


def test_what_is_written_is_read_by_the_package(tmp_path):
  tensors = {f't{i}': X.astype(d) for i, d in enumerate(DTYPES)}
  path = tmp_path / 'w.safetensors'
  safetensors_file.write(path, tensors)
  found = safetensors.numpy.load_file(path)
  assert set(found) == set(tensors)
  for name, value in tensors.items():
    assert found[name].dtype == value.dtype
    np.testing.assert_array_equal(found[name], value)


def entry(dtype, shape, offsets):
  return {'dtype': dtype, 'shape': shape, 'data_offsets': offsets}


def build(header, data=bytes(64)):
  raw = header if isinstance(header, bytes) else json.dumps(header).encode()
  return struct.pack('<Q', len(raw)) + raw + data


F = 'F32'
LIES = {
  'a header of -1': b'abc',
  'a header of 1152921504606846976': struct.pack('<Q', 2**60) + b'{}',
  'no JSON': build(b'{"w": '),
  'is no JSON .*recursion': build(b'[' * 100_000),
  'no JSON object': build([1]),
  'metadata are no': build({'__metadata__': 3}),
  'something twice': build(b'{"w": 1, "w": 2}'),
  "tensor 'w' is described": build({'w': entry('F4', [4], [0, 16])}),
  "'w' is described by 3": build({'w': 3}),
  'sizes that are none': build({'w': entry(F, [-1, -4], [0, 16])}),
  'sizes that are none: .*True': build({'w': entry(F, [True], [0, 4])}),
  'and 16 bytes lies at 0 to 20': build({'w': entry(F, [4], [0, 20])}),
  'lies at 56 to 72 of 64': build({'w': entry(F, [4], [56, 72])}),
  'and 73786976294838206464 bytes': build(
    {'w': entry(F, [2**32, 2**32], [0, 16])}
  ),
  "'v' and 'w' overlap": build(
    {'v': entry(F, [4], [0, 16]), 'w': entry(F, [4], [8, 24])}
  ),
}


@pytest.mark.parametrize('rule', LIES)
def test_lies_are_refused(tmp_path, rule):
  path = tmp_path / 'w.safetensors'
  path.write_bytes(LIES[rule])
  with pytest.raises(ValueError, match=rule):
    safetensors_file.SafetensorsFile(path)


def shards(folder, weight_map, **files):
  (folder / safetensors_file.INDEX).write_text(
    json.dumps({'weight_map': weight_map})
  )
  for name, tensors in files.items():
    safetensors.numpy.save_file(tensors, folder / f'{name}.safetensors')
  return folder


def test_shards_are_one_checkpoint(tmp_path):
  names = {'v': 'a.safetensors', 'w': 'b.safetensors'}
  shards(tmp_path, names, a={'v': X}, b={'w': 2 * X})
  folder = safetensors_file.SafetensorsFolder(tmp_path)
  assert folder.shapes == {'v': X.shape, 'w': X.shape}
  np.testing.assert_array_equal(folder.read('w'), 2 * X)


@pytest.mark.parametrize(
  'shard',
  ['../b.safetensors', '/etc/b.safetensors', 'x/b.safetensors', 'b.bin', '..'],
)
def test_shards_stay_in_their_folder(tmp_path, shard):
  inner = tmp_path / 'inner'
  inner.mkdir()
  shards(inner, {'v': shard}, a={'v': X})
  safetensors.numpy.save_file({'v': X}, tmp_path / 'b.safetensors')
  with pytest.raises(ValueError, match='only .safetensors files beside it'):
    safetensors_file.SafetensorsFolder(inner)


@pytest.mark.parametrize(
  'names, rule',
  [
    ({'v': 'a.safetensors'}, r"differ in \['w'\]"),
    (dict.fromkeys('uvw', 'a.safetensors'), r"differ in \['u'\]"),
    ({'v': 'none.safetensors'}, 'is not a file'),
    ({}, 'no weight_map'),
    ([1], 'no weight_map'),
  ],
)
def test_an_index_that_does_not_fit(tmp_path, names, rule):
  shards(tmp_path, names, a={'v': X, 'w': X})
  with pytest.raises(ValueError, match=rule):
    safetensors_file.SafetensorsFolder(tmp_path)


def test_folders_without_weights(tmp_path):
  with pytest.raises(ValueError, match='is not a file'):
    safetensors_file.SafetensorsFolder(tmp_path)
  with pytest.raises(ValueError, match=r'config.json and'):
    safetensors_file.read_json(tmp_path / 'config.json')


def read_all(path):
  file = safetensors_file.SafetensorsFile(path)
  for name in file.shapes:
    file.read(name)


def fuzz(folder, examples):
  tensors = {'v': X, 'w': X.astype(ml_dtypes.bfloat16), 'i': np.arange(3)}
  raw = safetensors.numpy.save(tensors, metadata={'a': 'b'})
  path = folder / 'damaged.safetensors'
  seen = set()

  @hypothesis.settings(max_examples=examples)
  @hypothesis.given(mutations.damaged(raw))
  def run(changed):
    path.write_bytes(changed)
    seen.add(mutations.only_value_errors(lambda: read_all(path)))

  run()
  assert seen == {True, False}


def test_damaged_files_raise_value_errors(tmp_path):
  fuzz(tmp_path, 300)


@pytest.mark.slow
def test_ten_thousand_damaged_files(tmp_path):
  fuzz(tmp_path, 10_000)
