"""Text as bytes, split once into train, calibration and test.

Each text is cut into 100 equal contiguous segments; of every 20 segments the
10th is calibration and the 20th is test, the others are train. The split
depends on the text alone, so nothing that was trained on can be tested on.
"""

import importlib.resources
import lzma
import pathlib

import numpy as np

EMBEDDED = ('austen', 'bible')
SPLITS = ('train', 'calibration', 'test')
SEGMENTS = 100


def load(path: str | None = None) -> tuple[np.ndarray, ...]:
  """Texts as arrays of bytes.

  Args:
    path: A UTF-8 text file of your own; None or '' for the embedded texts, six
      novels of Jane Austen and the World English Bible (`NOTICE.md`).

  Returns:
    One uint8 array [bytes] for each text.

  Raises:
    ValueError: If `path` is not a file, is empty, or is not UTF-8.
  """
  if path:
    return (_read_own(path),)
  folder = importlib.resources.files('lowbit.data')
  names = [folder / f'{name}.txt.xz' for name in EMBEDDED]
  return tuple(
    np.frombuffer(lzma.decompress(f.read_bytes()), np.uint8) for f in names
  )


def _read_own(path: str) -> np.ndarray:
  file = pathlib.Path(path)
  if not file.is_file():
    raise ValueError(
      f'`path` {path!r} is not a file. Give a UTF-8 text file, or leave it '
      'empty for the embedded text.'
    )
  raw = file.read_bytes()
  if not raw:
    raise ValueError(f'`path` {path!r} is empty. Give a file with text.')
  try:
    raw.decode('utf-8')
  except UnicodeDecodeError as error:
    raise ValueError(
      f'`path` {path!r} is not UTF-8 text ({error.reason} at byte '
      f'{error.start}). Convert it first, for example with iconv.'
    ) from error
  return np.frombuffer(raw, np.uint8)


def split(text: np.ndarray, name: str) -> list[np.ndarray]:
  """The segments of one split of one text, in order.

  Args:
    text: uint8 [bytes].
    name: 'train', 'calibration' or 'test'.

  Returns:
    Contiguous uint8 pieces; neighbouring train segments are joined.

  Raises:
    ValueError: If `name` is no split.
  """
  if name not in SPLITS:
    raise ValueError(f'`name` must be one of {SPLITS}, got {name!r}.')
  edges = np.linspace(0, len(text), SEGMENTS + 1).astype(int)
  kinds = [
    {9: 'calibration', 19: 'test'}.get(i % 20, 'train') for i in range(SEGMENTS)
  ]
  pieces: list[np.ndarray] = []
  for i, kind in enumerate(kinds):
    if kind != name:
      continue
    piece = text[edges[i] : edges[i + 1]]
    if i and kinds[i - 1] == kind:
      pieces[-1] = np.concatenate([pieces[-1], piece])
    else:
      pieces.append(piece)
  return pieces


def windows(pieces: list[np.ndarray], length: int) -> np.ndarray:
  """Consecutive windows that do not overlap, none across two pieces.

  Returns:
    int32 [windows, length].

  Raises:
    ValueError: If no piece holds one window.
  """
  if length < 2:
    raise ValueError(f'`length` must be at least 2, got {length}.')
  cut = [p[: len(p) // length * length].reshape(-1, length) for p in pieces]
  rows = np.concatenate(cut).astype(np.int32) if cut else np.zeros((0, length))
  if not len(rows):
    longest = max((len(p) for p in pieces), default=0)
    raise ValueError(
      f'The text is shorter than one sequence: its longest piece has length '
      f'{longest}, and `length` is {length}. Give more text, or a smaller '
      'length.'
    )
  return rows


def sample(
  texts: tuple[np.ndarray, ...], name: str, count: int, length: int
) -> np.ndarray:
  """`count` windows of a split, evenly spread over all texts.

  Args:
    texts: From `load`.
    name: The split.
    count: Number of windows.
    length: Bytes a window.

  Returns:
    int32 [count, length], the same at every call. The order interleaves the
    texts, so that any contiguous shard is as mixed as the whole.

  Raises:
    ValueError: If the split holds fewer than `count` windows.
  """
  pieces = [piece for text in texts for piece in split(text, name)]
  return spread(windows(pieces, length), name, count)


def spread(rows: np.ndarray, name: str, count: int) -> np.ndarray:
  """`count` of the rows [windows, length] of a split, as `sample` picks them.

  Raises:
    ValueError: If there are fewer.
  """
  if len(rows) < count or count < 1:
    raise ValueError(
      f'The {name} split holds {len(rows)} sequences of length '
      f'{rows.shape[1]}, and {count} were asked for. Ask for 1 to {len(rows)}, '
      'use shorter sequences, or give more text.'
    )
  picks = np.linspace(0, len(rows) - 1, count).astype(int)
  stride = next(
    s for s in range(count * 5 // 8 | 1, 2 * count + 2) if np.gcd(s, count) == 1
  )
  return rows[picks[np.arange(count) * stride % count]]


def training_batch(
  pieces: list[np.ndarray], step: int, batch: int, length: int, seed: int
) -> np.ndarray:
  """The batch of one step: random windows, a pure function of step and seed.

  Returns:
    int32 [batch, length]; a piece is drawn in proportion to its windows.
  """
  rng = np.random.default_rng([seed, step])
  starts = np.array([max(len(p) - length + 1, 0) for p in pieces])
  if not starts.sum():
    raise ValueError(
      f'No piece of the text holds {length} bytes. Give more text, or a '
      'smaller sequence length.'
    )
  which = rng.choice(len(pieces), size=batch, p=starts / starts.sum())
  offsets = [rng.integers(starts[w]) for w in which]
  rows = [pieces[w][o : o + length] for w, o in zip(which, offsets)]
  return np.stack(rows).astype(np.int32)
