"""Weights of others: what is read, and what is refused."""

import json
import pickle
import struct

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from lowbit.data import files

A = np.arange(6.0).reshape(2, 3)


class Bomb:
  def __reduce__(self):
    return (open, ('bomb', 'w'))


def test_safetensors(tmp_path):
  path = tmp_path / 'w.safetensors'
  tensors = {'w': A, 'b': A.astype(ml_dtypes.bfloat16), 'i': np.arange(3)}
  safetensors.numpy.save_file(tensors, path)
  found = files.weights(path)
  assert set(found) == {'w', 'b'}
  for x in found.values():
    assert x.dtype == np.float32
    np.testing.assert_array_equal(x, A)


@pytest.mark.parametrize('dtype', ['float64', 'float32', 'float16', '>f4'])
def test_npy(tmp_path, dtype):
  path = tmp_path / 'w.npy'
  np.save(path, np.asfortranarray(A.astype(dtype)))
  found = files.weights(str(path))
  assert list(found) == ['array']
  assert found['array'].dtype == np.float32
  np.testing.assert_array_equal(found['array'], A)


def saved(tmp_path, array, **options):
  path = tmp_path / 'w.npy'
  np.save(path, array, **options)
  return path


@pytest.mark.parametrize(
  'array, rule',
  [
    (np.arange(3), 'no floating-point tensor'),
    (np.ones(3, complex), 'no floating-point tensor'),
    (np.zeros(3, [('a', 'f4')]), 'no floating-point tensor'),
    (A.astype(ml_dtypes.bfloat16), 'save that as safetensors'),
    (np.float64([1e300]), 'beyond float32'),
    (np.float32([np.nan]), 'NaN'),
  ],
)
def test_arrays_that_are_no_weights(tmp_path, array, rule):
  with pytest.raises(ValueError, match=rule):
    files.weights(saved(tmp_path, array))


def test_pickles_are_not_opened(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  objects = np.asarray([Bomb(), None], object)
  path = saved(tmp_path, objects, allow_pickle=True)
  with pytest.raises(ValueError, match='plain numbers'):
    files.weights(path)
  path.write_bytes(pickle.dumps(Bomb()))
  with pytest.raises(ValueError, match='plain numbers'):
    files.weights(path)
  assert not (tmp_path / 'bomb').exists()


def test_npy_files_that_are_not_whole(tmp_path):
  path = saved(tmp_path, A)
  whole = path.read_bytes()
  lie = whole.replace(b'(2, 3), }' + b' ' * 15, b'(99999999999, 9999), }  ')
  assert len(lie) == len(whole)
  assert lie != whole
  for raw in (whole[:-3], whole[:20], b'', b'PK\x03\x04 zip', lie):
    path.write_bytes(raw)
    with pytest.raises(ValueError, match='not a whole .npy'):
      files.weights(path)


def header(dtype, shape, size):
  entry = {'dtype': dtype, 'shape': shape, 'data_offsets': [0, size]}
  raw = json.dumps({'w': entry}).encode()
  return struct.pack('<Q', len(raw)) + raw + bytes(size)


def test_safetensors_that_are_not_whole(tmp_path):
  path = tmp_path / 'w.safetensors'
  whole = safetensors.numpy.save({'w': A})
  for raw, rule in (
    (whole[:-8], 'not a whole safetensors'),
    (b'', 'not a whole safetensors'),
    (b'rubbish' * 30, 'not a whole safetensors'),
    (struct.pack('<Q', 2**60) + b'{}', 'not a whole safetensors'),
    (header('F32', [99999, 99999], 4), 'not a whole safetensors'),
    (header('F8_E4M3', [2, 2], 4), 'that NumPy cannot hold'),
    (safetensors.numpy.save({'w': A * np.nan}), 'w of .* holds NaN'),
    (safetensors.numpy.save({'i': np.arange(3)}), 'no floating-point'),
  ):
    path.write_bytes(raw)
    with pytest.raises(ValueError, match=rule):
      files.weights(path)


def test_other_files(tmp_path):
  with pytest.raises(ValueError, match='not a file'):
    files.weights(tmp_path / 'none.npy')
  with pytest.raises(ValueError, match=r'must end in .safetensors or .npy'):
    files.weights(tmp_path / 'w.npz')
  with pytest.raises(ValueError, match='bytes, more than 100'):
    files.weights(saved(tmp_path, A), limit=100)
