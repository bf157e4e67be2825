"""Safetensors files and folders of shards: mapped, and read with suspicion."""

import json
import math
import os
import pathlib
from collections.abc import Mapping

import ml_dtypes
import numpy as np

from lowbit.data import files

HEADER = 64 * 2**20  # Bytes; a larger header is refused.
INDEX = 'model.safetensors.index.json'
SINGLE = 'model.safetensors'
DTYPES = {
  'F64': np.float64,
  'F32': np.float32,
  'F16': np.float16,
  'BF16': ml_dtypes.bfloat16,
  'F8_E4M3': ml_dtypes.float8_e4m3fn,
  'F8_E5M2': ml_dtypes.float8_e5m2,
  'F8_E8M0': ml_dtypes.float8_e8m0fnu,
  'I64': np.int64,
  'U64': np.uint64,
  'I32': np.int32,
  'U32': np.uint32,
  'I16': np.int16,
  'U16': np.uint16,
  'I8': np.int8,
  'U8': np.uint8,
  'BOOL': np.bool_,
}


class SafetensorsFile:
  """The tensors of one file, mapped.

  Attributes:
    path: The file.
    shapes: Shape of each tensor.
    metadata: Strings of the header by name.
  """

  def __init__(self, path: str | os.PathLike):
    """Maps the file, and checks its header against its size.

    Raises:
      ValueError: If `path` is no file, or its header truncated, no JSON, or one
        that claims duplicate names, unknown dtypes, or bytes that are not in
        the file, overlap, or do not fit the shape.
    """
    self.path = pathlib.Path(path)
    if not self.path.is_file():
      raise ValueError(f'`path` {self.path} is not a file.')
    size = self.path.stat().st_size
    self._data = np.memmap(self.path, np.uint8, 'r') if size else np.zeros(0)
    try:
      self._places, self.metadata = _parse(self._data)
    except ValueError as error:
      raise ValueError(
        f'`path` {self.path} is not a whole safetensors file: {error}. Copy it '
        'again.'
      ) from error
    self.shapes = {name: p[1] for name, p in self._places.items()}

  def raw(self, name: str) -> np.ndarray:
    """A tensor in its own dtype, mapped."""
    dtype, shape, start, end = self._places[name]
    return self._data[start:end].view(dtype).reshape(shape)

  def read(self, name: str) -> np.ndarray:
    """A tensor as finite float32; else ValueError."""
    return files.float32(name, self.raw(name), self.path)

  def release(self) -> None:
    """Gives back the memory of mapped pages; they are read again on need."""
    files.release(self._data)


def _parse(data) -> tuple[dict, dict[str, str]]:
  """({name: (dtype, shape, start, end)}, metadata)."""
  size = int.from_bytes(bytes(data[:8]), 'little') if data.size >= 8 else -1
  if not 2 <= size <= min(HEADER, data.size - 8):
    raise ValueError(f'a header of {size} bytes is not in its {data.size}')
  try:
    header = json.loads(bytes(data[8 : 8 + size]), object_pairs_hook=_once)
  except (RecursionError, UnicodeDecodeError, json.JSONDecodeError) as error:
    raise ValueError(f'its header is no JSON ({error})') from error
  if not isinstance(header, dict):
    raise ValueError('its header is no JSON object')
  metadata = header.pop('__metadata__', {})
  if not isinstance(metadata, dict):
    raise ValueError('its metadata are no JSON object')
  places = {n: _place(n, e, 8 + size, data.size) for n, e in header.items()}
  end, before = 8 + size, ''
  for name, (_, _, start, stop) in sorted(
    places.items(), key=lambda item: item[1][2:]
  ):
    if start < end:
      raise ValueError(f'tensors {before!r} and {name!r} overlap')
    end, before = stop, name
  return places, metadata


def _once(pairs) -> dict:
  found = dict(pairs)
  if len(found) != len(pairs):
    raise ValueError('its header names something twice')
  return found


def _place(name: str, entry, start: int, size: int):
  try:
    dtype = np.dtype(DTYPES[entry['dtype']])
    shape = tuple(entry['shape'])
    first, last = entry['data_offsets']
  except (KeyError, TypeError, ValueError) as error:
    raise ValueError(f'tensor {name!r} is described by {entry!r}') from error
  numbers = (*shape, first, last)
  whole = all(type(n) is int and n >= 0 for n in numbers)
  if not whole or len(shape) > 16:
    raise ValueError(f'tensor {name!r} has sizes that are none: {numbers}')
  wanted = math.prod(shape) * dtype.itemsize
  if last - first != wanted or start + last > size:
    raise ValueError(
      f'tensor {name!r} of shape {shape} and {wanted} bytes lies at {first} to '
      f'{last} of {size - start}'
    )
  return dtype, shape, start + first, start + last


class SafetensorsFolder:
  """A model's folder as Hugging Face lays it out: one file, or shards.

  Attributes:
    path: The folder.
    shapes: Shape of each tensor, of all shards.
  """

  def __init__(self, path: str | os.PathLike):
    """Maps all files of the folder.

    Raises:
      ValueError: If there is neither model.safetensors nor an index of shards;
        an index names a file outside of the folder, or tensors that their
        shards do not have or that two have; or a file is not whole.
    """
    self.path = pathlib.Path(path)
    if (self.path / INDEX).is_file():
      names = _shards(self.path / INDEX)
      shards = {n: SafetensorsFile(self.path / n) for n in set(names.values())}
    else:
      shards = {SINGLE: SafetensorsFile(self.path / SINGLE)}
      names = dict.fromkeys(shards[SINGLE].shapes, SINGLE)
    for shard, file in shards.items():
      held, claimed = (
        set(file.shapes),
        {n for n, s in names.items() if s == shard},
      )
      if held != claimed:
        odd = sorted(held ^ claimed)[:8]
        raise ValueError(
          f'`path` {self.path}: {INDEX} and {shard} differ in {odd}.'
        )
    self._files = {name: shards[shard] for name, shard in names.items()}
    self.shapes = {n: f.shapes[n] for n, f in self._files.items()}

  def read(self, name: str) -> np.ndarray:
    """A tensor as finite float32; else ValueError."""
    return self._files[name].read(name)

  def release(self) -> None:
    """Gives back the memory of mapped pages; they are read again on need."""
    for file in {id(f): f for f in self._files.values()}.values():
      file.release()


def _shards(index: pathlib.Path) -> dict[str, str]:
  """Name of a tensor -> plain name of a file beside the index."""
  names = read_json(index).get('weight_map')
  if not isinstance(names, Mapping) or not names:
    raise ValueError(f'`path` {index} has no weight_map.')
  for shard in set(map(str, names.values())):
    plain = shard.endswith('.safetensors') and not set(shard) & set('/\\\0:')
    if not plain:
      raise ValueError(
        f'`path` {index} names the shard {shard!r}; only .safetensors files '
        'beside it are read.'
      )
  return {str(k): str(v) for k, v in names.items()}


def read_json(path: pathlib.Path, limit: int = HEADER) -> dict:
  """A JSON object from a file of at most `limit` bytes; else ValueError."""
  if not path.is_file() or path.stat().st_size > limit:
    raise ValueError(
      f'`path` {path} is no file of at most {limit} bytes. Give a folder with '
      f'config.json and {SINGLE} or {INDEX}.'
    )
  try:
    found = json.loads(path.read_bytes(), object_pairs_hook=_once)
  except (RecursionError, ValueError) as error:
    raise ValueError(f'`path` {path} is no JSON: {error}.') from error
  if not isinstance(found, dict):
    raise ValueError(f'`path` {path} is no JSON object.')
  return found


def write(path: str | os.PathLike, tensors: Mapping[str, np.ndarray]) -> None:
  """Writes a file; the package's NumPy side has no floats of 8 bits.

  Args:
    path: File to write.
    tensors: Arrays of the dtypes in `DTYPES`.
  """
  names = {np.dtype(dtype): name for name, dtype in DTYPES.items()}
  header, at = {'__metadata__': {'format': 'pt'}}, 0
  # Wide ones first, so that each lies at a multiple of its width.
  ordered = sorted(tensors.items(), key=lambda item: -item[1].dtype.itemsize)
  for name, value in ordered:
    header[name] = {
      'dtype': names[value.dtype],
      'shape': value.shape,
      'data_offsets': [at, at + value.nbytes],
    }
    at += value.nbytes
  raw = json.dumps(header).encode()
  raw += b' ' * (-len(raw) % 8)
  with pathlib.Path(path).open('wb') as file:
    file.write(len(raw).to_bytes(8, 'little') + raw)
    for _, value in ordered:
      file.write(np.ascontiguousarray(value).tobytes())
