"""Results as JSON lines: appended whole, keyed by the hash of their config."""

import hashlib
import json
import math
import os
import pathlib
import warnings
from collections.abc import Iterable, Mapping

FILE = 'results.jsonl'


def config_hash(config: Mapping) -> str:
  """16 hex digits of SHA-256 over canonical JSON; tuples count as lists."""
  text = json.dumps(config, sort_keys=True, separators=(',', ':'))
  return hashlib.sha256(text.encode()).hexdigest()[:16]


def check_writable(folder: str | os.PathLike) -> pathlib.Path:
  """Makes the output folder and proves that it can be written.

  Returns:
    Its absolute path.

  Raises:
    ValueError: If it is a file, or cannot be made or written.
  """
  path = pathlib.Path(folder).absolute()
  probe = path / f'.probe-{os.getpid()}'
  try:
    path.mkdir(parents=True, exist_ok=True)
    probe.write_text('')
    probe.unlink()
  except OSError as error:
    raise ValueError(
      f'`out` {str(folder)!r} is not a folder that can be written: '
      f'{error.strerror}. Give another with --out=DIR.'
    ) from error
  return path


def plain(value):
  """A value as JSON gives it back: tuples are lists, NaN and Inf null."""
  if isinstance(value, float) and not math.isfinite(value):
    return None
  if isinstance(value, Mapping):
    return {k: plain(v) for k, v in value.items()}
  if isinstance(value, list | tuple):
    return [plain(v) for v in value]
  return value


def append(path: str | os.PathLike, row: Mapping) -> None:
  """Appends one row as one line, by one write, synced to disk.

  A loss that is not finite is written as null, with status 'diverged'. A last
  line that a killed process left unfinished is set aside first.
  """
  append_all(path, [row])


def append_all(path: str | os.PathLike, rows: Iterable[Mapping]) -> None:
  """`append` of rows that belong together, still by one write."""
  text = ''.join(map(_line, rows))
  path = pathlib.Path(path)
  _close_last_line(path)
  handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
  try:
    os.write(handle, text.encode())
    os.fsync(handle)
  finally:
    os.close(handle)


def _line(row: Mapping) -> str:
  row = dict(row)
  bad = [
    v for v in row.values() if isinstance(v, float) and not math.isfinite(v)
  ]
  if bad and row.get('status', 'ok') == 'ok':
    row['status'] = 'diverged'
  return json.dumps(plain(row), allow_nan=False) + '\n'


def append_new(path: str | os.PathLike, rows: Iterable[Mapping]) -> None:
  """Appends the rows that the file does not have; NaN and Inf become null."""
  known = read(path)
  for row in map(plain, rows):
    if row not in known:
      append(path, row)


def _close_last_line(path: pathlib.Path) -> None:
  if not path.exists():
    return
  raw = path.read_bytes()
  if raw and not raw.endswith(b'\n'):
    keep = raw.rfind(b'\n') + 1
    _set_aside(path, [raw[keep:].decode(errors='replace')])
    os.truncate(path, keep)


def _set_aside(path: pathlib.Path, lines: list[str]) -> None:
  rejected = path.with_name(path.name + '.rejected')
  with rejected.open('a') as file:
    file.writelines(line + '\n' for line in lines)
  warnings.warn(
    f'{len(lines)} unreadable line(s) of {path} were set aside in {rejected}.',
    stacklevel=3,
  )


def read(path: str | os.PathLike) -> list[dict]:
  """All rows of a file; no file, no rows.

  Lines that are no JSON objects are moved to FILE.rejected, with a warning.
  """
  path = pathlib.Path(path)
  if not path.exists():
    return []
  rows, good, bad = [], [], []
  for line in path.read_text(errors='replace').splitlines():
    try:
      row = json.loads(line)
      if not isinstance(row, dict):
        raise ValueError
    except ValueError:
      bad.append(line)
    else:
      rows.append(row)
      good.append(line)
  if bad:
    _set_aside(path, bad)
    temporary = path.with_name(path.name + '.new')
    temporary.write_text(''.join(line + '\n' for line in good))
    temporary.replace(path)
  return rows


def finished(path: str | os.PathLike, config: Mapping) -> dict | None:
  """The row of a finished run of this config, if there is one."""
  wanted = config_hash(config)
  done = [
    row
    for row in read(path)
    if row.get('config_hash') == wanted
    and row.get('status') in ('ok', 'diverged')
  ]
  return done[-1] if done else None
