"""GGUF files: read as the package gguf reads them, and refused if they lie."""

import struct

import gguf
import hypothesis
import numpy as np
import pytest

from lowbit.interop import gguf_file, gguf_header
from tests.interop import mutations

KINDS = gguf.GGMLQuantizationType


def write(path, kinds=(KINDS.F32, KINDS.Q4_1, KINDS.Q8_0), rows=4, columns=64):
  """A small file with a tensor of each kind, and fields of all sorts."""
  writer = gguf.GGUFWriter(path, 'llama')
  writer.add_uint32('a.count', 3)
  writer.add_float32('a.ratio', 0.5)
  writer.add_bool('a.flag', True)
  writer.add_array('a.words', ['one', 'zwölf', ''])
  writer.add_array('a.numbers', [3, 1, 2])
  rng = np.random.default_rng(0)
  for kind in kinds:
    x = rng.standard_normal((rows, columns), np.float32)
    writer.add_tensor(f'w.{kind.name}', gguf.quantize(x, kind), raw_dtype=kind)
  writer.write_header_to_file()
  writer.write_kv_data_to_file()
  writer.write_tensors_to_file()
  writer.close()
  return path


def random_blocks(kind, rows, columns):
  """Bytes of any type, with its float fields left to chance."""
  block, width = gguf.GGML_QUANT_SIZES[kind]
  shape = rows, columns // block * width
  return np.random.default_rng(1).integers(0, 120, shape, np.uint8)


def decodes(kind):
  try:
    gguf.dequantize(random_blocks(kind, 2, 256), kind)
  except NotImplementedError:
    return False
  return True


def test_fields_and_tensors_are_those_of_gguf(tmp_path):
  kinds = (KINDS.F32, KINDS.F16, KINDS.BF16, KINDS.Q5_1, KINDS.TQ2_0)
  path = write(tmp_path / 'w.gguf', kinds, columns=256)
  ours, theirs = gguf_file.GgufFile(path), gguf.GGUFReader(path)
  fields = {k: v.contents() for k, v in theirs.fields.items()}
  fields = {k: v for k, v in fields.items() if not k.startswith('GGUF.')}
  plain = lambda v: v.tolist() if isinstance(v, np.ndarray) else v
  assert {k: plain(v) for k, v in ours.fields.items()} == fields
  assert list(ours.shapes) == [t.name for t in theirs.tensors]
  for t in theirs.tensors:
    assert ours.kind(t.name) == t.tensor_type.name
    assert ours.shapes[t.name] == (4, 256)
    want = gguf.dequantize(t.data, t.tensor_type)
    np.testing.assert_array_equal(ours.read(t.name), want)


def test_every_type_that_gguf_decodes(tmp_path):
  kinds = [k for k in gguf.GGML_QUANT_SIZES if decodes(k)]
  writer = gguf.GGUFWriter(tmp_path / 'w.gguf', 'llama')
  for kind in kinds:
    writer.add_tensor(kind.name, random_blocks(kind, 2, 256), raw_dtype=kind)
  writer.write_header_to_file()
  writer.write_kv_data_to_file()
  writer.write_tensors_to_file()
  writer.close()
  file = gguf_file.GgufFile(tmp_path / 'w.gguf')
  assert len(file.shapes) > 20
  for kind in kinds:
    want = gguf.dequantize(random_blocks(kind, 2, 256), kind)
    np.testing.assert_array_equal(file.read(kind.name), want)


def test_types_without_a_decoder_and_numbers_that_are_none(tmp_path):
  writer = gguf.GGUFWriter(tmp_path / 'w.gguf', 'llama')
  writer.add_tensor('bytes', np.zeros((2, 32), np.int8))
  writer.add_tensor('nan', np.float32([[np.nan]]))
  writer.write_header_to_file()
  writer.write_kv_data_to_file()
  writer.write_tensors_to_file()
  writer.close()
  file = gguf_file.GgufFile(tmp_path / 'w.gguf')
  with pytest.raises(ValueError, match='does not decode'):
    file.read('bytes')
  with pytest.raises(ValueError, match='nan of .* NaN or Inf'):
    file.read('nan')


def text(value):
  raw = value.encode()
  return struct.pack('<Q', len(raw)) + raw


def entry(name, shape, kind=0, offset=0):
  numbers = struct.pack(f'<I{len(shape)}Q', len(shape), *shape)
  return text(name) + numbers + struct.pack('<IQ', kind, offset)


def build(tensors=(), fields=(), version=3, counts=None, data=256):
  """A file by hand, so that it can lie."""
  counts = counts or (len(tensors), len(fields))
  head = b'GGUF' + struct.pack('<IQQ', version, *counts)
  raw = head + b''.join(fields) + b''.join(tensors)
  return raw + bytes(-len(raw) % 32 + data)


LIES = {
  'begin': b'GGML' + bytes(60),
  'version 9': build(version=9),
  'big-endian': build(version=0x03000000),
  'tensors cannot lie': build(counts=(2**60, 0)),
  'fields cannot lie': build(counts=(0, 2**63)),
  'beyond the end': b'GGUF' + struct.pack('<IQQ', 3, 0, 1) + b'\xff' * 16,
  'needs 4000000 bytes': build([entry('w', (1000, 1000))]),
  'needs 36893488147419103232': build([entry('w', (2**31, 2**32))]),
  'and the file ends': build([entry('w', (4,), offset=2**63)]),
  'unknown ggml type 77': build([entry('w', (4,), kind=77)]),
  'unknown ggml type 4': build([entry('w', (4,), kind=4)]),
  'multiple of its block, 32': build([entry('w', (4, 4), kind=2)]),
  'no positive': build([entry('w', (4, 0))]),
  "two tensors of the name 'w'": build([entry('w', (4,)), entry('w', (4,))]),
  'overlap': build([entry('v', (8,)), entry('w', (8,), offset=16)]),
  '9 axes': build([entry('w', (1,) * 9)]),
  "two fields of the name 'k'": build(
    fields=[text('k') + struct.pack('<IB', 0, 1)] * 2
  ),
  'unknown type 99': build(fields=[text('k') + struct.pack('<IB', 99, 1)]),
  'array of 4611686018427387904': build(
    fields=[text('k') + struct.pack('<IIQ', 9, 8, 2**62)]
  ),
  'strings cannot lie': build(
    fields=[text('k') + struct.pack('<IIQ', 9, 8, 2**20)]
  ),
  'a field of 8388608 bytes': build(
    fields=[text('k') + struct.pack('<IIQ', 9, 12, 2**20)]
  ),
  'not UTF-8': build(
    fields=[struct.pack('<Q', 2) + b'\xff\xfe' + struct.pack('<IB', 0, 1)]
  ),
  'general.alignment 0': build(
    fields=[text('general.alignment') + struct.pack('<II', 4, 0)]
  ),
  'general.alignment 24': build(
    fields=[text('general.alignment') + struct.pack('<II', 4, 24)]
  ),
}


@pytest.mark.parametrize('rule', LIES)
def test_lies_are_refused(tmp_path, rule):
  path = tmp_path / 'w.gguf'
  path.write_bytes(LIES[rule])
  with pytest.raises(ValueError, match=rule):
    gguf_file.GgufFile(path)


def test_what_is_built_by_hand_is_read(tmp_path):
  path = tmp_path / 'w.gguf'
  path.write_bytes(build([entry('w', (4, 2))]))
  assert gguf_file.GgufFile(path).read('w').shape == (2, 4)


def test_files_that_are_none(tmp_path):
  with pytest.raises(ValueError, match='is not a file'):
    gguf_file.GgufFile(tmp_path / 'none.gguf')
  (tmp_path / 'empty.gguf').write_bytes(b'')
  with pytest.raises(ValueError, match='whole GGUF'):
    gguf_file.GgufFile(tmp_path / 'empty.gguf')


def test_every_truncation_is_refused(tmp_path):
  raw = write(tmp_path / 'w.gguf').read_bytes()
  data = np.frombuffer(raw, np.uint8)
  whole = gguf_header.parse(data)
  used = max(t.offset + t.nbytes for t in whole.tensors.values())
  for size in range(used):
    with pytest.raises(ValueError, match=r'.'):
      gguf_header.parse(data[:size])


def read_all(path):
  file = gguf_file.GgufFile(path)
  for name in file.shapes:
    file.read(name)


def fuzz(folder, examples):
  raw = write(folder / 'w.gguf', rows=2, columns=32).read_bytes()
  path = folder / 'damaged.gguf'
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
