"""Runs in flight: orbax checkpoints that are checked before they are believed.

Each group has a folder: `runs.json` says which runs it holds, and each step a
checkpoint with a digest of its arrays. What is broken is moved to `rejected/`
and reported, never deleted.
"""

import hashlib
import json
import os
import pathlib
import shutil
from collections.abc import Callable, Sequence

import jax
import numpy as np

from lowbit.experiment import checkpoint

KEPT = 2  # Checkpoints of a group: the newest, and one to fall back on.
_RUNS = 'runs.json'
_GONE = 'gone-'


def digest(tree) -> np.ndarray:
  """SHA-256 over all leaves, their shapes and dtypes: uint8 [32]."""
  total = hashlib.sha256()
  for leaf in jax.tree.leaves(tree):
    array = np.asarray(leaf)
    total.update(f'{array.dtype}{array.shape}'.encode())
    total.update(np.ascontiguousarray(array).tobytes())
  return np.frombuffer(total.digest(), np.uint8)


class Store:
  """The checkpoints of one sweep."""

  def __init__(
    self, out: str | os.PathLike, report: Callable[[str], None] = print
  ):
    """Opens OUT/checkpoints; `report` hears of what is set aside."""
    self.root = pathlib.Path(out).absolute() / 'checkpoints'
    self.rejected = self.root.with_name('rejected')
    self.report = report

  def folder(self, hashes: Sequence[str]) -> pathlib.Path:
    """The folder of the group of these runs."""
    name = hashlib.sha256(' '.join(hashes).encode()).hexdigest()[:16]
    return self.root / name

  def in_flight(self) -> list[list[str]]:
    """The run hashes of each group that was begun and not finished."""
    found = []
    for folder in _listed(self.root):
      try:
        hashes = json.loads((folder / _RUNS).read_text())
        if self.folder(hashes) != folder:
          raise ValueError('its runs are not those of its name')
      except (OSError, ValueError, TypeError) as error:
        self._set_aside(folder, error)
      else:
        found.append(hashes)
    return found

  def save(self, hashes: Sequence[str], step: int, state) -> None:
    """Writes a checkpoint: whole, or not at all."""
    folder = self.folder(hashes)
    if not (folder / _RUNS).exists():
      folder.mkdir(parents=True, exist_ok=True)
      temporary = folder / (_RUNS + '.new')
      temporary.write_text(json.dumps(list(hashes)))
      temporary.replace(folder / _RUNS)
    checkpoint.save(
      folder / str(step), {'state': state, 'digest': digest(state)}
    )
    for old in self._steps(folder)[KEPT:]:
      _remove(folder / str(old))

  def restore(self, hashes: Sequence[str], like):
    """The newest sound state of a group, or None.

    Args:
      hashes: Of its runs.
      like: Tree of the state's shapes and dtypes.
    """
    folder = self.folder(hashes)
    if not folder.exists():
      return None
    for path in _listed(folder):  # Of a process that was killed.
      if not path.name.isdigit() and path.name != _RUNS:
        self._set_aside(path, 'it was half-written')
    wanted = {'state': like, 'digest': np.zeros(32, np.uint8)}
    for step in self._steps(folder):
      try:
        found = checkpoint.restore(folder / str(step), wanted)
        if not np.array_equal(found['digest'], digest(found['state'])):
          raise ValueError('its digest does not fit its arrays')
      except Exception as error:  # Whatever orbax makes of broken files.
        self._set_aside(folder / str(step), error)
      else:
        return found['state']
    return None

  def finish(self, hashes: Sequence[str]) -> None:
    """Forgets a group whose results are written."""
    if self.folder(hashes).exists():
      _remove(self.folder(hashes))

  def drop(self, hashes: Sequence[str], why: str) -> None:
    """Sets a whole group aside."""
    self._set_aside(self.folder(hashes), why)

  def _steps(self, folder: pathlib.Path) -> list[int]:
    """Newest first."""
    names = [p.name for p in folder.iterdir() if p.name.isdigit()]
    return sorted(map(int, names), reverse=True)

  def _set_aside(self, path: pathlib.Path, why) -> None:
    self.rejected.mkdir(parents=True, exist_ok=True)
    stem = '-'.join(path.relative_to(self.root).parts)
    names = (f'{stem}-{i}' for i in range(10**6))
    target = next(
      t for t in map(self.rejected.joinpath, names) if not t.exists()
    )
    path.rename(target)
    self.report(
      f'The checkpoint {path} was set aside as {target}: '
      f'{" ".join(str(why).split())[:500]}.'
    )


def _remove(path: pathlib.Path) -> None:
  """Removes a folder; a kill leaves no half of it under its name."""
  gone = path.with_name(_GONE + path.name)
  path.rename(gone)
  shutil.rmtree(gone)


def _listed(folder: pathlib.Path) -> list[pathlib.Path]:
  """What is in a folder, without what `_remove` had no time to remove."""
  paths = sorted(folder.iterdir()) if folder.exists() else []
  for path in paths:
    if path.name.startswith(_GONE):
      shutil.rmtree(path)
  return [p for p in paths if not p.name.startswith(_GONE)]
