"""GGUF files: mapped into memory, and decoded tensor by tensor."""

import os
import pathlib

import numpy as np

from lowbit.data import files
from lowbit.interop import gguf_header


class GgufFile:
  """The tensors and metadata of a GGUF file.

  Attributes:
    path: The file.
    fields: Its metadata: scalars, str, NumPy arrays and lists of str by name.
    shapes: Shape of each tensor, the contiguous axis last; so a matrix is
      [out, in].
  """

  def __init__(self, path: str | os.PathLike):
    """Maps the file, and checks its header against its size.

    Raises:
      ValueError: If `path` is no file, or the header of no whole GGUF file
        (see `gguf_header.parse`); before memory is taken.
      ImportError: Without the package `gguf`.
    """
    check_package()
    self.path = pathlib.Path(path)
    if not self.path.is_file():
      raise ValueError(f'`path` {self.path} is not a file.')
    empty = not self.path.stat().st_size
    self._data = (
      np.zeros(0, np.uint8) if empty else np.memmap(self.path, np.uint8, 'r')
    )
    try:
      header = gguf_header.parse(self._data)
    except ValueError as error:
      raise ValueError(
        f'`path` {self.path} is not a whole GGUF file: {error}. Copy it again.'
      ) from error
    self.fields, self.tensors = header.fields, header.tensors
    self.shapes = {name: t.shape for name, t in self.tensors.items()}

  @property
  def architecture(self) -> str:
    """The name of the architecture, which starts the names of its fields."""
    return str(self.fields.get('general.architecture', ''))

  def number(self, key: str, default: float | None = None):
    """A number of the architecture's own metadata.

    Args:
      key: Without the architecture, such as 'block_count'.
      default: What an absent one is; a float allows fractions.

    Raises:
      ValueError: If it is absent without a default, or no such number.
    """
    name = f'{self.architecture}.{key}'
    value = self.fields.get(name, default)
    kinds = int | float if isinstance(default, float) else int
    fits = isinstance(value, kinds) and not isinstance(value, bool)
    if not fits or not 0 <= value < 2**40:  # NaN is in no range.
      raise ValueError(
        f'Field {name} of `path` {self.path} must be a number of at least 0, '
        f'got {value!r}.'
      )
    return value

  def expect(self, key: str, *allowed) -> None:
    """Raises ValueError unless a field is one of these; None: absent."""
    value = self.fields.get(key)
    if value not in allowed:
      raise ValueError(
        f'Field {key} of `path` {self.path} is {value!r}, which is not '
        f'supported; {", ".join(map(repr, allowed))} is.'
      )

  def shape(self, name: str, axes: int) -> tuple[int, ...]:
    """The shape of a tensor of so many axes; ValueError for any other."""
    found = self.shapes.get(name)
    if found is None or len(found) != axes:
      raise ValueError(
        f'`path` {self.path} must have a tensor {name} of {axes} axes, got '
        f'{found}.'
      )
    return found

  def blocks(self) -> int:
    """Number of layers, at most that of the tensors; else ValueError."""
    count = self.number('block_count')
    if not 0 < count <= len(self.shapes):
      raise ValueError(
        f'`path` {self.path} claims {count} layers and has {len(self.shapes)} '
        'tensors.'
      )
    return count

  def kind(self, name: str) -> str:
    """The ggml type of a tensor, such as 'Q4_1'."""
    import gguf

    return gguf.GGMLQuantizationType(self.tensors[name].kind).name

  def raw(self, name: str) -> np.ndarray:
    """The bytes of a tensor, mapped: uint8 [..., bytes of a row]."""
    t = self.tensors[name]
    data = self._data[t.offset : t.offset + t.nbytes]
    return data.reshape(*t.shape[:-1], -1)

  def read(self, name: str) -> np.ndarray:
    """A tensor as float32, of `shapes[name]`.

    Raises:
      ValueError: If `gguf` cannot decode its type, or it is not finite.
    """
    import gguf

    kind = gguf.GGMLQuantizationType(self.tensors[name].kind)
    try:
      with np.errstate(all='ignore'):
        value = gguf.dequantize(np.asarray(self.raw(name)), kind)
    except NotImplementedError as error:
      raise ValueError(
        f'Tensor {name} of `path` {self.path} has the type {kind.name}, which '
        'the package gguf does not decode. Convert the file to another type.'
      ) from error
    return files.float32(name, value.reshape(self.shapes[name]), self.path)

  def release(self) -> None:
    """Gives back the memory of mapped pages; they are read again on need."""
    files.release(self._data)


def check_package() -> None:
  """Raises ImportError, with the way out, if `gguf` is missing."""
  try:
    import gguf  # noqa: F401
  except ImportError as error:
    raise ImportError(
      "GGUF needs the package gguf: pip install 'lowbit[interop]'."
    ) from error
