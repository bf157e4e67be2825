"""From the rows of a sweep to the points of a law."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from lowbit import quantize
from lowbit.analysis import laws, laws_loss, laws_penalty, laws_solve

_RUN = ('parameters', 'tokens', 'learning_rate', 'seed')
_FLOAT_BITS = 32


@dataclasses.dataclass(frozen=True)
class Points:
  """What a law is fitted to."""

  law: laws.Law
  inputs: dict[str, np.ndarray]  # Each [n].
  target: np.ndarray  # [n].
  left_out: int = 0  # Rows that have no such point.


def usable(rows: Sequence[dict]) -> list[dict]:
  """Finished rows; those that diverged have no loss."""
  return [row for row in rows if row.get('status') == 'ok']


def is_float(row: dict) -> bool:
  """Whether a run was trained without quantization."""
  return not (row['weight'] or row['activation'] or row['gradient'])


def _spec(name: str):
  return quantize.Spec.parse(name) if name else None


def _bits(name: str) -> int:
  return _spec(name).format.bits if name else _FLOAT_BITS


def _gather(law, rows: Sequence[dict], points, all_rows: int) -> Points:
  """`points`: dicts of law.inputs and 'target', of as many rows."""
  if not points:
    raise ValueError(
      f'None of {all_rows} rows has what law {law.name!r} needs: '
      f'{", ".join(law.inputs)} and {law.target}.'
    )
  column = lambda k: np.array([p[k] for p in points], np.float64)
  inputs = {k: column(k) for k in law.inputs}
  return Points(law, inputs, column('target'), all_rows - len(rows))


def _loss(law, rows, more=lambda row: {}) -> Points:
  """Points of the loss; `more` gives inputs of a row, or None to leave it."""
  kept = [(row, more(row)) for row in usable(rows)]
  kept = [(row, extra) for row, extra in kept if extra is not None]
  points = [
    {
      'parameters': row['parameters'],
      'tokens': row['tokens'],
      'target': row['loss_nats'],
      **extra,
    }
    for row, extra in kept
  ]
  return _gather(law, kept, points, len(rows))


def chinchilla(rows) -> Points:
  """Float runs alone."""
  only_float = lambda row: {} if is_float(row) else None
  return _loss(laws_loss.CHINCHILLA, rows, only_float)


def kaplan(rows) -> Points:
  """Float runs alone."""
  points = chinchilla(rows)
  return dataclasses.replace(points, law=laws_loss.KAPLAN)


def precision(rows) -> Points:
  """Runs whose formats are integers but for a factor: E1Mm and ints.

  One block size, that of most runs: the law has no term for it.
  """
  blocks = [b for row in usable(rows) if (b := _block(row))]
  block = max(set(blocks), key=blocks.count) if blocks else None

  def more(row):
    names = [row['weight'], row['activation']]
    whole = all(not n or _is_uniform(n) for n in names) and not row['gradient']
    if not whole or _block(row) not in (block, None):
      return None
    return {'bits_w': _bits(names[0]), 'bits_a': _bits(names[1])}

  return _loss(laws_loss.precision(('w', 'a')), rows, more)


def _block(row):
  spec = _spec(row['weight'] or row['activation'])
  return spec.block if spec else None


def _is_uniform(name: str) -> bool:
  """int3 and e1m1 have the same levels, but for a factor."""
  fmt = _spec(name).format
  return fmt.name.startswith('int') or getattr(fmt, 'exponent', 0) == 1


def capybara(rows) -> Points:
  """Float runs, and runs with weights and inputs in one ExMy with groups."""

  def more(row):
    if is_float(row):
      return {'exponent': 8, 'mantissa': 23, 'block': 2}
    spec = _spec(row['weight'])
    same = row['weight'] == row['activation'] and not row['gradient']
    if not same or not hasattr(spec.format, 'exponent'):
      return None
    if not isinstance(spec.block, int):
      return None
    return {
      'exponent': spec.format.exponent,
      'mantissa': spec.format.mantissa,
      'block': spec.block,
    }

  return _loss(laws_loss.CAPYBARA, rows, more)


def qat(rows) -> Points:
  """What training at 4 bits adds to a float run of the same seed.

  Weights and inputs are in one uniform format; a law of powers has no zero,
  and runs to which the format adds nothing are left out.
  """
  runs = usable(rows)
  floats = {_key(row): row['loss_nats'] for row in runs if is_float(row)}
  points = []
  for row in runs:
    spec = _spec(row['weight'])
    fits = spec and row['weight'] == row['activation'] and not row['gradient']
    if not fits or spec.format.bits != 4 or not isinstance(spec.block, int):
      continue
    if _key(row) in floats and _is_uniform(row['weight']):
      sizes = {k: row[k] for k in ('parameters', 'tokens')}
      added = row['loss_nats'] - floats[_key(row)]
      points.append({**sizes, 'block': spec.block, 'target': added})
  kept = [p for p in points if p['target'] > PENALTY_FLOOR]
  return _gather(laws_penalty.QAT, kept, kept, len(rows))


def _key(row):
  return tuple(row[k] for k in _RUN)


def _rounded(rows, law) -> Points:
  points = []
  for row in usable(rows):
    if not is_float(row):
      continue
    for name, loss in row['post'].items():
      if loss is not None:
        points.append(
          {
            'parameters': row['parameters'],
            'tokens': row['tokens'],
            'bits': _bits(name),
            'target': loss - row['loss_nats'],
          }
        )
  # A law of powers has no zero, and measured penalties near 0 are noise.
  kept = [p for p in points if p['target'] > PENALTY_FLOOR]
  return dataclasses.replace(
    _gather(law, kept, kept, len(points)), left_out=len(points) - len(kept)
  )


PENALTY_FLOOR = 1e-3  # Nats.


def qid(rows) -> Points:
  """What rounding the weights of float runs afterwards adds to the loss."""
  return _rounded(rows, laws_penalty.QID)


def post_training(rows) -> Points:
  """The same points, for a law that is exponential in the bits."""
  return _rounded(rows, laws_penalty.POST_TRAINING)


def inference(rows) -> Points:
  """Loss of rounded float runs against the total bits of their layers.

  Embedding and head are in float and are not counted. Only the longest runs:
  at a given size, how long a model was trained must not differ between widths.
  """
  runs = [row for row in usable(rows) if is_float(row)]
  longest = max((row['tokens'] for row in runs), default=0)
  points = []
  for row in runs:
    for name, loss in row['post'].items():
      if row['tokens'] != longest or loss is None:
        continue
      bits, block = _bits(name), _spec(name).block
      per_weight = laws_solve.bits_per_weight(bits, block, scale_bits=32)
      points.append(
        {
          'bits': bits,
          'total_bits': per_weight * row['parameters'],
          'target': loss,
        }
      )
  widths = tuple(sorted({int(p['bits']) for p in points}))
  return _gather(laws_penalty.inference(widths), points, points, len(rows))


# What scripts/fit_law.py can fit to the rows of a sweep.
BY_NAME = {
  f.__name__: f
  for f in (
    chinchilla,
    kaplan,
    precision,
    capybara,
    qat,
    qid,
    post_training,
    inference,
  )
}
