"""Files of tensors that come from others: read whole, and with suspicion.

Nothing in them is run: safetensors has no code, and .npy is opened without
pickles.
"""

import mmap
import os
import pathlib

import numpy as np

LIMIT = 4 * 2**30  # Bytes; a larger file is not read.
WEIGHTS = ('.safetensors', '.npy')


def weights(
  path: str | os.PathLike, limit: int = LIMIT
) -> dict[str, np.ndarray]:
  """Name -> float32 array: all floating-point tensors of a file.

  Args:
    path: A .safetensors file, or a .npy file of one array, which is named
      'array'.
    limit: Bytes; a larger file is refused.

  Raises:
    ValueError: If the file is missing, too large, truncated or of another
      kind; holds pickled objects; or has no floating-point tensor, or one with
      NaN or Inf, or with numbers beyond float32.
  """
  path = pathlib.Path(path)
  if path.suffix not in WEIGHTS:
    raise ValueError(
      f'`path` {path} must end in {" or ".join(WEIGHTS)}. Save the weights as '
      'one of them.'
    )
  tensors = (
    read_safetensors(path, limit)[0]
    if path.suffix == '.safetensors'
    else {'array': read_npy(path, limit)}
  )
  found = {n: float32(n, t, path) for n, t in tensors.items() if _is_float(t)}
  if not found:
    kinds = sorted({str(t.dtype) for t in tensors.values()})
    raise ValueError(
      f'`path` {path} has no floating-point tensor: {len(tensors)} of {kinds}. '
      '(.npy does not keep bfloat16: save that as safetensors.)'
    )
  return found


def read_safetensors(
  path: pathlib.Path, limit: int
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
  """(tensors, metadata) of a file of at most `limit` bytes; else ValueError."""
  import safetensors

  _check(path, limit)
  try:
    with safetensors.safe_open(path, framework='numpy') as file:
      tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
      return tensors, file.metadata() or {}
  except safetensors.SafetensorError as error:
    raise ValueError(
      f'`path` {path} is not a whole safetensors file: {error}. Copy it again.'
    ) from error
  except AttributeError as error:  # NumPy has no such dtype.
    raise ValueError(
      f'`path` {path} holds a tensor that NumPy cannot hold: {error}. Convert '
      'it to float32 or bfloat16.'
    ) from error


def read_npy(path: pathlib.Path, limit: int) -> np.ndarray:
  """The array of a .npy file of at most `limit` bytes; else ValueError.

  It is mapped, not read, at first: so a header that promises more than the
  file holds is refused before any memory is taken.
  """
  _check(path, limit)
  try:
    with path.open('rb') as file:
      if file.read(6) != b'\x93NUMPY':
        raise ValueError('it does not begin as one')
    return np.array(np.load(path, mmap_mode='r', allow_pickle=False))
  except (ValueError, OSError, EOFError) as error:
    raise ValueError(
      f'`path` {path} is not a whole .npy file of plain numbers: {error}. '
      'Write it again with numpy.save(path, array, allow_pickle=False).'
    ) from error


def _check(path: pathlib.Path, limit: int) -> None:
  if not path.is_file():
    raise ValueError(f'`path` {path} is not a file.')
  if path.stat().st_size > limit:
    raise ValueError(
      f'`path` {path} has {path.stat().st_size} bytes, more than {limit}.'
    )


def _is_float(tensor: np.ndarray) -> bool:
  """Whether NumPy or ml_dtypes calls it a float."""
  return tensor.dtype.name.startswith(('float', 'bfloat'))


def release(mapped: np.ndarray) -> None:
  """Drops the resident pages of a `numpy.memmap`, on systems that can.

  They come back from the file when they are touched; until then a mapped
  checkpoint does not count as memory in use.
  """
  pages = mapped.base
  if isinstance(pages, mmap.mmap) and hasattr(mmap, 'MADV_DONTNEED'):
    pages.madvise(mmap.MADV_DONTNEED)


def float32(name: str, tensor: np.ndarray, path: pathlib.Path) -> np.ndarray:
  """`tensor` as finite float32, or ValueError."""
  with np.errstate(over='ignore'):
    tensor = tensor.astype(np.float32)
  if not np.isfinite(tensor).all():
    raise ValueError(
      f'Tensor {name} of `path` {path} holds NaN or Inf, or numbers beyond '
      'float32. Clean it first.'
    )
  return tensor
