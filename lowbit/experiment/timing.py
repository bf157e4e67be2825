"""How long compiled programs take, side by side, and what memory they touch.

Other work on a machine slows all programs that run at the same time by about
as much: programs are timed in turns, each by its fastest run, and what counts
is the ratio of two of them.
"""

import dataclasses
import math
import re
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax


@dataclasses.dataclass(frozen=True)
class Settings:
  """What every suite of `scripts/bench.py` is asked for."""

  size: int  # Of the arrays, in a sense that the suite defines.
  repeats: int
  only: str = ''  # A regular expression that a case must hold.

  def __post_init__(self):
    if self.size < 1 or self.repeats < 1:
      raise ValueError(f'`size` and `repeats` must be positive, got {self}.')
    try:
      re.compile(self.only)
    except re.error as error:
      raise ValueError(
        f'`only` {self.only!r} is no regular expression: {error}.'
      ) from error

  def wants(self, case: str) -> bool:
    """Whether a case is asked for."""
    return re.search(self.only, case) is not None


@dataclasses.dataclass(frozen=True)
class Program:
  """A compiled function and the arguments that it is timed on."""

  compiled: Any  # jax.stages.Compiled.
  args: tuple

  def __call__(self):
    """Runs it; returns its outputs when they are there."""
    return jax.block_until_ready(self.compiled(*self.args))

  @property
  def bytes_accessed(self) -> float | None:
    """Bytes read and written, as XLA's cost analysis counts them."""
    return (self.compiled.cost_analysis() or {}).get('bytes accessed')

  @property
  def passes(self) -> int:
    """How many steps read or write an array as large as the first argument."""
    large = math.prod(jax.tree.leaves(self.args)[0].shape)
    return sum(n >= large for n in step_sizes(self.compiled.as_text()))


def compile(function: Callable, *args) -> Program:
  """Compiles `function` for these arguments."""
  return Program(jax.jit(function).lower(*args).compile(), args)


class Seconds(NamedTuple):
  """The least of several runs, by each clock."""

  wall: float
  cpu: float  # Of all threads of this process: other work disturbs it less.


def best_seconds(
  programs: Mapping[str, Callable[[], Any]], repeats: int
) -> dict[str, Seconds]:
  """The least seconds of each program, run in turns, once untimed.

  Args:
    programs: Called without arguments; each waits for its own results.
    repeats: Timed runs of each.

  Raises:
    ValueError: If `repeats` is not positive.
  """
  if repeats < 1:
    raise ValueError(f'`repeats` must be positive, got {repeats}.')
  for program in programs.values():
    program()
  best = dict.fromkeys(programs, Seconds(math.inf, math.inf))
  for _ in range(repeats):
    for name, program in programs.items():
      wall, cpu = time.perf_counter(), time.process_time()
      program()
      spent = time.perf_counter() - wall, time.process_time() - cpu
      best[name] = Seconds(*map(min, best[name], spent))
  return best


_ENTRY = re.compile(r'^ENTRY .*?^}', re.MULTILINE | re.DOTALL)
_LINE = re.compile(
  r'^\s*(?:ROOT )?%?(?P<name>[\w.-]+) = (?P<shape>.+?) (?P<op>[\w-]+)'
  r'\((?P<operands>[^)]*)\)',
  re.MULTILINE,
)
_FREE = ('parameter', 'constant', 'bitcast', 'tuple', 'get-tuple-element')


def step_sizes(hlo: str) -> list[int]:
  """Elements of the largest array that each step of a program touches.

  Args:
    hlo: Text of an optimized module. Steps are the instructions of its entry:
      fusions, kernels, loops; those that move nothing are left out.
  """
  sizes, steps = {}, []
  for line in _LINE.finditer(_ENTRY.search(hlo)[0]):
    names = re.findall(r'[\w.-]+', line['operands'])
    own = max(map(_elements, re.findall(r'\[([\d,]*)\]', line['shape'])))
    sizes[line['name']] = own
    if line['op'] not in _FREE:
      steps.append(max([own, *(sizes.get(name, 0) for name in names)]))
  return steps


def _elements(dimensions: str) -> int:
  return math.prod(int(n) for n in dimensions.split(',') if n)
