"""Which implementation of an operation runs: asked for, or the best that can.

An operation lists its candidates. With `implementation=None` the choice falls
when the program is lowered, by the platform that it is lowered for, so that
compiling for a TPU in a process without one takes the TPU's kernel.
"""

import dataclasses
import functools
import typing
import warnings
from collections.abc import Callable, Sequence

import jax

Implementation = typing.Literal['tpu', 'gpu', 'xla', 'reference'] | None
PLATFORMS = {'tpu': 'tpu', 'gpu': 'cuda'}  # Where a kernel runs.


@dataclasses.dataclass(frozen=True)
class Candidate:
  """One implementation of an operation.

  Attributes:
    name: 'tpu', 'gpu', 'xla' or 'reference'.
    run: The function; of all candidates alike.
    reasons: Why it cannot take these arguments, with the same signature: a
      sequence of sentences, empty if it can.
  """

  name: str
  run: Callable
  reasons: Callable[..., Sequence[str]] = lambda *args: ()


def explain(candidates: Sequence[Candidate], *args) -> dict[str, list[str]]:
  """For each candidate why it cannot take `args`; an empty list if it can."""
  return {c.name: list(c.reasons(*args)) for c in candidates}


def check(
  operation: str,
  candidates: Sequence[Candidate],
  implementation: Implementation,
  interpret: bool,
  *args,
) -> None:
  """Raises unless what was asked for exists, and can take `args`.

  Raises:
    ValueError: With all reasons together.
  """
  names = [c.name for c in candidates]
  if implementation is not None and implementation not in names:
    raise ValueError(
      f'`implementation` of {operation} must be None or one of {names}, got '
      f'{implementation!r}.'
    )
  if interpret and implementation not in PLATFORMS:
    raise ValueError(
      "`interpret` goes with implementation='tpu' or 'gpu', got "
      f'{implementation!r}.'
    )
  if implementation is None:
    return
  reasons = explain(candidates, *args)[implementation]
  platform = _platform(args)
  wanted = PLATFORMS.get(implementation)
  if wanted and not interpret and platform and platform not in (wanted, 'gpu'):
    reasons.append(f'the arguments lie on {platform}, not on {wanted}')
  if reasons:
    raise ValueError(
      f'{operation} cannot run as {implementation!r}: {"; ".join(reasons)}. '
      'With implementation=None the best that can is chosen.'
    )


def _platform(args) -> str | None:
  """Where concrete arrays lie; None for tracers."""
  for leaf in jax.tree.leaves(args):
    if isinstance(leaf, jax.Array) and not isinstance(leaf, jax.core.Tracer):
      return next(iter(leaf.devices())).platform
  return None


def run(candidates: Sequence[Candidate], implementation: Implementation, *args):
  """Runs the candidate asked for, or the platform's; `check` comes before.

  A kernel that cannot take the arguments gives way to the next candidate that
  can, in the order of the list.
  """
  named = {c.name: c for c in candidates}
  if implementation is not None:
    return named[implementation].run(*args)
  rest = [c for c in candidates if c.name not in PLATFORMS]
  default = next(c for c in rest if not c.reasons(*args))
  kernels = {
    platform: named[name].run
    for name, platform in PLATFORMS.items()
    if name in named and not named[name].reasons(*args)
  }
  return jax.lax.platform_dependent(*args, default=default.run, **kernels)


def warn_fallback(
  operation: str, candidates: Sequence[Candidate], *args
) -> None:
  """Says once that this machine's kernel cannot take these arguments."""
  backend = {'tpu': 'tpu', 'gpu': 'gpu', 'cuda': 'gpu'}.get(
    jax.default_backend()
  )
  reasons = explain(candidates, *args).get(backend)
  if reasons:
    _warn_once(operation, '; '.join(reasons))


@functools.cache
def _warn_once(operation: str, reasons: str) -> None:
  warnings.warn(
    f'{operation} runs without its kernel: {reasons}.', stacklevel=2
  )
