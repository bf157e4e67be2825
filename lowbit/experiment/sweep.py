"""Sweeps: from a config to runs, and to groups that share a program.

The grid of a config is one mapping, or several, from fields of `Run` to values;
each is expanded to all combinations. Runs of one model, length and layout of
blocks differ in numbers alone, and are trained together.
"""

import dataclasses
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from lowbit.experiment import results, sweep_program
from lowbit.intercept import traced
from lowbit.models import decoder
from lowbit.quantize import grid


@dataclasses.dataclass(frozen=True)
class Run:
  """One training run, as the grid of a config names it."""

  model: str  # A name of config.models.
  tokens: int  # Bytes of text that are trained on.
  weight: str = ''  # Spec of the weights; '' for float32.
  activation: str = ''  # Of the inputs of layers.
  gradient: str = ''  # Of the gradients of their outputs.
  learning_rate: float = 0.0  # Its peak; 0 for config.learning_rate.
  seed: int = 0  # Of weights and data.


FIELDS = tuple(f.name for f in dataclasses.fields(Run))
_NEEDED = ('model', 'tokens')
# Of a config: what a result depends on, beside the fields of its run.
SHARED = (
  'data',
  'sequence',
  'batch',
  'warmup',
  'decay',
  'weight_decay',
  'keep',
  'windows',
  'post',
)


@dataclasses.dataclass(frozen=True)
class Group:
  """Runs that one program trains side by side."""

  runs: tuple[Run, ...]
  layout: traced.Layout

  @property
  def model(self) -> str:
    """Its name in config.models."""
    return self.runs[0].model

  @property
  def tokens(self) -> int:
    """Tokens of each run."""
    return self.runs[0].tokens


def runs(config) -> list[Run]:
  """All runs of a config, checked before any work.

  Raises:
    ValueError: If the grid is empty, names an unknown field, model or spec, or
      its tokens are no whole number of steps.
  """
  grids = config.grid
  grids = [grids] if isinstance(grids, Mapping) else list(grids)
  found: dict[Run, None] = {}
  for one in grids:
    found.update(dict.fromkeys(_expand(config, one)))
  if not found:
    raise ValueError(
      f'`grid` {grids} is a grid of no runs: a field has no values. Give each '
      'at least one.'
    )
  for run in found:
    _check(config, run)
  return list(found)


def _expand(config, one: Mapping) -> Iterator[Run]:
  unknown = sorted(set(one) - set(FIELDS))
  missing = [f for f in _NEEDED if f not in one]
  if unknown or missing:
    raise ValueError(
      f'`grid` has unknown fields {unknown} and misses {missing}. The fields '
      f'of a run are {", ".join(FIELDS)}.'
    )
  listed = lambda v: v if isinstance(v, list | tuple) else (v,)
  for values in itertools.product(*map(listed, one.values())):
    run = Run(**dict(zip(one, values)))
    rate = float(run.learning_rate or config.learning_rate)
    yield dataclasses.replace(run, learning_rate=rate)


def _check(config, run: Run) -> None:
  if run.model not in config.models:
    raise ValueError(
      f'`model` {run.model!r} is not in `models`: {sorted(config.models)}.'
    )
  decoder.DecoderConfig(**config.models[run.model])
  step = config.batch * config.sequence
  if run.tokens < step or run.tokens % step:
    raise ValueError(
      f'`tokens` {run.tokens} must be a positive multiple of batch x sequence '
      f'= {step}, such as {max(round(run.tokens / step), 1) * step}.'
    )
  if not (math.isfinite(run.learning_rate) and run.learning_rate > 0):
    raise ValueError(f'`learning_rate` must be positive, got {run}.')
  for kind in traced.OPERANDS:
    traced.format_of(getattr(run, kind))


def full_config(config, run: Run) -> dict:
  """All that the result of a run depends on."""
  everything = config.to_dict()
  return {
    **{k: everything[k] for k in SHARED},
    **dataclasses.asdict(run),
    'model': everything['models'][run.model],
    'name': run.model,
  }


def run_hash(config, run: Run) -> str:
  """The key of a run's result."""
  return results.config_hash(full_config(config, run))


def groups(config, pending: Sequence[Run]) -> list[Group]:
  """Packs runs into groups of at most config.members, in their order.

  An operand in float goes with any layout.
  """
  found: list[Group] = []
  for run in pending:
    layout = _layout(config, run)
    for i, group in enumerate(found):
      fits = (run.model, run.tokens) == (group.model, group.tokens)
      both = _merged(layout, group.layout)
      if fits and both and len(group.runs) < config.members:
        found[i] = Group((*group.runs, run), both)
        break
    else:
      found.append(Group((run,), layout))
  return found


def group_of(config, members: Sequence[Run]) -> Group:
  """The group of exactly these runs.

  Raises:
    ValueError: If they do not share a program.
  """
  whole = groups(config, members)
  if len(whole) != 1:
    raise ValueError(f'The runs {list(members)} do not share a program.')
  return whole[0]


def _layout(config, run: Run) -> traced.Layout:
  specs = {k: getattr(run, k) for k in traced.OPERANDS}
  specs = {k: grid.layout(s) if s else None for k, s in specs.items()}
  return traced.Layout(**specs, keep=tuple(config.keep))


def _merged(a: traced.Layout, b: traced.Layout) -> traced.Layout | None:
  pairs = {k: (getattr(a, k), getattr(b, k)) for k in traced.OPERANDS}
  if any(x and y and x != y for x, y in pairs.values()):
    return None
  return dataclasses.replace(a, **{k: x or y for k, (x, y) in pairs.items()})


def program(config, group: Group) -> sweep_program.Program:
  """The static part of a group's training."""
  return sweep_program.Program(
    decoder.DecoderConfig(**config.models[group.model]),
    group.layout,
    config.warmup,
    config.decay,
    config.weight_decay,
  )


def members(config, group: Group) -> sweep_program.Member:
  """The traced part: numbers of each run, stacked."""
  steps = group.tokens // (config.batch * config.sequence)
  operands = [k for k in traced.OPERANDS if getattr(group.layout, k)]
  each = [
    sweep_program.Member(
      np.uint32(run.seed),
      np.float32(run.learning_rate),
      np.int32(steps),
      {k: traced.format_of(getattr(run, k)) for k in operands},
    )
    for run in group.runs
  ]
  return sweep_program.stack(each)
