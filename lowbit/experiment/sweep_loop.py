"""Runs a sweep: goes on with what is in flight, then trains what is left.

The rows of a group are appended by one write once it is trained, and its
checkpoints go after that, so that at any instant each run is finished, in
flight with a checkpoint, or not begun.
"""

import contextlib
import dataclasses
import fcntl
import pathlib
import time
from collections.abc import Callable, Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from lowbit.data import text
from lowbit.experiment import results, sweep, sweep_program, sweep_store
from lowbit.intercept import traced
from lowbit.quantize import grid


@dataclasses.dataclass
class Status:
  """Where a group stands."""

  group: sweep.Group
  hashes: list[str]
  steps: int  # In all.
  work: float  # Parameters x tokens of all members.
  done: int = 0
  nats: np.ndarray | None = None  # Of the last batch, [members].
  state: str = 'waits'  # 'waits', 'trains' or 'finished'.


class Sweep:
  """A config with its text and runs loaded and checked."""

  def __init__(self, config, out, report: Callable[[str], None] = print):
    """Loads everything, and finds out what is done.

    Args:
      config: `configs/sweeps/smoke.py` names the fields.
      out: Folder of results.jsonl and checkpoints.
      report: Hears of what was found, and what was set aside.

    Raises:
      ValueError: For bad input, before any work.
    """
    self.config = config
    self.runs = sweep.runs(config)
    _check_sizes(config)
    self.out = results.check_writable(out)
    self.file = self.out / results.FILE
    self.store = sweep_store.Store(self.out, report)
    self.report = report
    texts = text.load(config.data.path)
    self.pieces = [p for t in texts for p in text.split(t, 'train')]
    self.held_out = text.sample(texts, 'test', config.windows, config.sequence)
    self.by_hash = {sweep.run_hash(config, run): run for run in self.runs}
    found = results.read(self.file)
    _check_rows(config, found, self.by_hash, self.file)
    self.finished = {
      row['config_hash']: row
      for row in found
      if row.get('config_hash') in self.by_hash
    }
    self.statuses = self._plan()

  def _plan(self) -> list[Status]:
    """Groups in flight as they were, then the rest in new ones."""
    plan, taken = [], set(self.finished)
    for hashes in self.store.in_flight():
      strange = [h for h in hashes if h not in self.by_hash]
      if strange:
        self.store.drop(hashes, f'runs {strange} are not in this grid')
      elif set(hashes) <= taken:
        self.store.finish(hashes)
      else:
        members = [self.by_hash[h] for h in hashes]
        plan.append(self._status(sweep.group_of(self.config, members)))
        taken |= set(hashes)
    pending = [r for h, r in self.by_hash.items() if h not in taken]
    return plan + [self._status(g) for g in sweep.groups(self.config, pending)]

  def _status(self, group: sweep.Group) -> Status:
    hashes = [sweep.run_hash(self.config, run) for run in group.runs]
    program = sweep.program(self.config, group)
    one = jax.tree.map(lambda a: a[:1], sweep.members(self.config, group))
    params = jax.eval_shape(lambda: sweep_program.init(program, one).params)
    size = sum(int(np.prod(p.shape)) for p in jax.tree.leaves(params))
    return Status(
      group,
      hashes,
      group.tokens // (self.config.batch * self.config.sequence),
      float(size * group.tokens * len(group.runs)),
    )

  def run(
    self, show: Callable[[Status], None] = lambda status: None
  ) -> list[dict]:
    """Trains all that is not finished; `show` hears after each segment.

    Returns:
      The rows of all runs of the grid, in its order.

    Raises:
      ValueError: If another process runs a sweep in this folder.
    """
    with _alone(self.out):
      self._run(show)
    rows = {r['config_hash']: r for r in results.read(self.file)}
    return [rows[h] for h in self.by_hash]

  def _run(self, show) -> None:
    for status in self.statuses:
      begun = time.monotonic()
      status.state = 'trains'
      show(status)
      states = self._train(status, show)
      rows = self._rows(status, states, time.monotonic() - begun)
      fresh = [r for r in rows if r['config_hash'] not in self.finished]
      results.append_all(self.file, fresh)
      self.store.finish(status.hashes)
      self.finished |= {r['config_hash']: r for r in fresh}
      status.state = 'finished'
      show(status)

  def _train(self, status: Status, show):
    config, group = self.config, status.group
    program = sweep.program(config, group)
    members = sweep.members(config, group)
    # A shape, not a state: what a checkpoint holds must fit it.
    like = jax.eval_shape(lambda: sweep_program.init(program, members))
    states = self.store.restore(status.hashes, like)
    if states is None:
      states = sweep_program.init(program, members)
    else:
      # Arrays of a checkpoint are bound to a device, and would be a new case.
      states = jax.tree.map(lambda a: jnp.asarray(np.asarray(a)), states)
      status.done = int(states.step[0])
      self.report(
        f'{len(group.runs)} runs of {group.model} go on from step '
        f'{status.done} of {status.steps}.'
      )
    while status.done < status.steps:
      count = min(config.checkpoint_every, status.steps - status.done)
      tokens = self._tokens(group, status.done, count)
      states, nats = sweep_program.advance(
        program, members, states, tokens, np.int32(count)
      )
      status.done += count
      status.nats = np.asarray(nats)
      self.store.save(status.hashes, status.done, states)
      show(status)
    return states

  def _tokens(self, group, start: int, count: int) -> np.ndarray:
    """int32 [members, checkpoint_every, batch, sequence], padded with zeros."""
    c = self.config
    shape = (c.checkpoint_every, c.batch, c.sequence)
    out = {}
    for seed in {run.seed for run in group.runs}:
      out[seed] = np.zeros(shape, np.int32)
      for i in range(count):
        out[seed][i] = text.training_batch(
          self.pieces, start + i, c.batch, c.sequence, seed
        )
    return np.stack([out[run.seed] for run in group.runs])

  def _rows(self, status: Status, states, seconds: float) -> list[dict]:
    config, group = self.config, status.group
    program = sweep.program(config, group)
    members = sweep.members(config, group)
    params = states.params
    score = lambda program, members: sweep_program.evaluate(
      program, members, params, self.held_out, config.batch
    )
    nats = score(program, members)
    post = {
      spec: score(*_post(program, members, spec)).mean(axis=1)
      for spec in config.post
    }
    body, whole = sweep_program.sizes(jax.tree.map(lambda p: p[0], params))
    rows = []
    for i, (run, key) in enumerate(zip(group.runs, status.hashes)):
      windows = nats[i].size
      rows.append(
        {
          **dataclasses.asdict(run),
          'parameters': body,
          'parameters_total': whole,
          'loss_nats': float(nats[i].mean()),
          'stderr': float(nats[i].std() / windows**0.5),
          'post': {spec: float(values[i]) for spec, values in post.items()},
          'seconds': round(seconds / len(group.runs), 3),
          'status': 'ok',
          'config_hash': key,
          'config': sweep.full_config(config, run),
        }
      )
    return rows


@contextlib.contextmanager
def _alone(out: pathlib.Path) -> Iterator[None]:
  """Holds the folder's lock, which the system frees however a process ends."""
  with (out / '.lock').open('w') as file:
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
      raise ValueError(
        f'`out` {out} is the folder of a sweep that runs now. Wait for it, or '
        'give another with --out=DIR.'
      ) from error
    yield


def _post(program, members, spec: str):
  """Program and members of an evaluation with weights rounded afterwards."""
  layout = traced.Layout(weight=grid.layout(spec), keep=program.layout.keep)
  one = {'weight': traced.format_of(spec)}
  count = len(members.seed)
  formats = jax.tree.map(lambda a: np.broadcast_to(a, (count, *a.shape)), one)
  return (
    dataclasses.replace(program, layout=layout),
    members._replace(formats=formats),
  )


def _check_sizes(config) -> None:
  for field in ('members', 'checkpoint_every', 'batch', 'windows'):
    if config[field] < 1:
      raise ValueError(f'`{field}` must be positive, got {config[field]}.')
  if config.windows % config.batch:
    raise ValueError(
      f'`batch` {config.batch} must divide `windows` {config.windows}.'
    )
  for spec in config.post:
    traced.format_of(spec)


def _check_rows(config, rows: Sequence[dict], known, file) -> None:
  """Raises ValueError if a results file is of another experiment."""
  shared = {k: v for k, v in config.to_dict().items() if k in sweep.SHARED}
  shared = results.plain(shared)
  for row in rows:
    if row.get('config_hash') in known:
      continue
    theirs = row.get('config')
    theirs = theirs if isinstance(theirs, dict) else {}
    other = [k for k, v in shared.items() if theirs.get(k) != v]
    if other:
      raise ValueError(
        f'{file} holds the results of another config: it differs in '
        f'{", ".join(other)}. Give another folder with --out=DIR.'
      )
