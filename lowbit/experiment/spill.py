"""Arrays that would fill the memory, kept in a temporary file."""

import tempfile
import weakref
from collections.abc import Iterable, Sequence

import numpy as np


class Spilled(Sequence):
  """Arrays on disk, read anew at each look; the file goes with the object."""

  def __init__(self, arrays: Iterable):
    """Writes the arrays one by one; each may be made as it is asked for."""
    self._file = tempfile.TemporaryFile()  # noqa: SIM115
    weakref.finalize(self, self._file.close)
    self._places: list[tuple] = []
    for array in arrays:
      array = np.asarray(array)
      self._places.append((self._file.tell(), array.dtype, array.shape))
      self._file.write(np.ascontiguousarray(array).data)

  def __len__(self) -> int:
    return len(self._places)

  def __getitem__(self, index: int) -> np.ndarray:
    offset, dtype, shape = self._places[index]
    self._file.seek(offset)
    count = int(np.prod(shape))
    return np.fromfile(self._file, dtype, count).reshape(shape)
