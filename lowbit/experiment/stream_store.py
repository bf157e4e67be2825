"""What a part-by-part run leaves on disk, and goes on from."""

import dataclasses
import hashlib
import json
import os
import pathlib
import shutil
from collections.abc import Callable

import numpy as np

from lowbit.data import files
from lowbit.experiment import checkpoint

_PLAN = 'plan.json'
_LIMIT = 2**40  # Bytes of streams.


@dataclasses.dataclass(frozen=True)
class Streams:
  """What the finished parts put out."""

  done: int  # Parts.
  values: dict[str, np.ndarray]


def digest(arrays) -> str:
  """16 hex digits of SHA-256 over arrays."""
  total = hashlib.sha256()
  for array in arrays:
    total.update(f'{array.dtype}{array.shape}'.encode())
    total.update(np.ascontiguousarray(array).tobytes())
  return total.hexdigest()[:16]


class Store:
  """The folder of one run."""

  def __init__(self, out: pathlib.Path):
    """Opens OUT; nothing is written yet."""
    self.out = out

  def begin(self, facts: dict) -> None:
    """Writes what the run is, or checks that it is the one that was begun.

    Raises:
      ValueError: If OUT holds another run.
    """
    facts = json.loads(json.dumps(facts))
    path = self.out / _PLAN
    if path.exists():
      found = self.facts()
      odd = [k for k in facts if found.get(k) != facts[k]]
      if odd:
        raise ValueError(
          f'`out` {self.out} holds another run: {_different(found, facts)}. '
          'Give another folder with --out=DIR, or remove it.'
        )
      return
    _write(path, lambda path: path.write_text(json.dumps(facts, indent=2)))

  def facts(self) -> dict:
    """What the run is.

    Raises:
      ValueError: If OUT holds none.
    """
    try:
      return json.loads((self.out / _PLAN).read_text())
    except (OSError, ValueError) as error:
      raise ValueError(
        f'`out` {self.out} has no readable {_PLAN} ({error}). Give the folder '
        'of a run of scripts/stream.py.'
      ) from error

  def write_part(self, name: str, params: dict) -> None:
    """Writes a part; one of a killed run is written anew."""
    path = self.out / 'parts' / name
    if path.exists():
      shutil.rmtree(path)
    checkpoint.save(path, params)

  def read_part(self, name: str, like: dict) -> dict:
    """The params of a part; ValueError if it is not there, or does not fit."""
    return checkpoint.restore(self.out / 'parts' / name, like)

  def write_streams(self, streams: Streams) -> None:
    """Writes the streams behind a part; then those before it go."""
    import safetensors.numpy

    values = {k: np.ascontiguousarray(v) for k, v in streams.values.items()}
    facts = {'digest': digest(values[k] for k in sorted(values))}
    save = lambda path: safetensors.numpy.save_file(values, path, facts)
    _write(self.out / f'streams-{streams.done}', save)
    for path in self._streams()[1:]:
      path.unlink()

  def newest(self) -> Streams | None:
    """The streams of a run that was begun; None for a new one.

    Raises:
      ValueError: If they are damaged.
    """
    for path in self._streams():
      values, metadata = files.read_safetensors(path, _LIMIT)
      if metadata.get('digest') != digest(values[k] for k in sorted(values)):
        raise ValueError(
          f'{path} is damaged: its digest does not fit. Remove {self.out}, and '
          'start anew.'
        )
      return Streams(_done(path), values)
    return None

  def _streams(self) -> list[pathlib.Path]:
    """Newest first; what a killed process left half-written is not one."""
    found = [p for p in self.out.glob('streams-*') if p.name[8:].isdigit()]
    return sorted(found, key=_done, reverse=True)


def _done(path: pathlib.Path) -> int:
  return int(path.name.removeprefix('streams-'))


def _different(found: dict, wanted: dict) -> str:
  flat = lambda d: {
    f'{k}.{j}': v for k, inner in d.items() for j, v in _items(inner)
  }
  a, b = flat(found), flat(wanted)
  odd = [f'{k} {a.get(k)!r}, not {b[k]!r}' for k in b if a.get(k) != b[k]]
  return '; '.join(odd)


def _items(inner):
  return inner.items() if isinstance(inner, dict) else [('', inner)]


def _write(path: pathlib.Path, save: Callable) -> None:
  """A file, whole or not at all."""
  temporary = path.with_name(path.name + '.new')
  save(temporary)
  with temporary.open('rb') as file:
    os.fsync(file.fileno())
  temporary.replace(path)
