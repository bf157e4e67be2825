"""Suite `quantize`: formats against `x * 2` on the same array, and qwix.

For each case what one does with a format: codes from an array, the array from
codes, both at once, and both at once with a gradient passed back. A sweep over
the weights of a model comes last, its compilation included.
"""

import functools
import time
from collections.abc import Iterator

import jax
import jax.numpy as jnp

from lowbit import quantize
from lowbit.data import embedded
from lowbit.experiment import qwix_baseline, timing

CASES = (
  'int8@channel',
  'int4@channel',
  'int4@g128',
  'e4m3@channel',
  'mxfp8_e4m3',
  'mxfp6_e2m3',
  'mxfp4',
  'nvfp4',
  'nf4@g64',
  'posit8_1@channel',
  'dint4@g128',
  'int8@channel~stochastic',
  'int4@g128~stochastic',
  'e4m3@channel~stochastic',
  'mxfp4~stochastic',
  'nf4@g64~stochastic',
)
SWEEP = (
  *('int2', 'int3', 'int4', 'int5', 'int6', 'int8', 'int4f', 'int8f'),
  *('e2m1', 'e1m2', 'e2m2', 'e3m1', 'e2m3', 'e3m2', 'e4m3', 'e5m2'),
)


def rows(settings: timing.Settings) -> Iterator[dict]:
  """Yields one row a measurement, on matrices [size, size].

  Keys: `milliseconds`; `times_double`, the time as a multiple of that of
  `x * 2` in float32; `times_qwix`, how many times as fast as qwix, or
  why that is not known, and `cpu_times_qwix`, the same by the processor time of
  all threads (of the host, if there is an accelerator); `bytes_accessed`, by
  XLA's cost analysis, as a multiple of x; `passes`, the steps of the program
  that touch arrays of the size of x.
  """
  shape = (settings.size, settings.size)
  single = jax.random.normal(jax.random.key(0), shape)
  double = timing.compile(lambda x: x * 2, single)
  for dtype in ('float32', 'bfloat16'):
    x = single.astype(dtype)
    for case in filter(settings.wants, CASES):
      for what, own, other in _programs(case, x):
        yield {
          'case': case,
          'dtype': dtype,
          'what': what,
          **_measured(own, other, double, x.nbytes, settings.repeats),
        }
  if settings.wants('sweep'):
    yield sweep(embedded.load()[1])


def _programs(case: str, x: jax.Array):
  """(what, lowbit's program, qwix's or a text) of each use of a format."""
  key = None
  if case.endswith(qwix_baseline.STOCHASTIC):
    key = jax.random.key(1)
  code = lambda x, key: quantize.quantize(x, case, key=key)
  fake = lambda x, key: quantize.fake_quantize(x, case, key=key)
  pair = qwix_baseline.codec(case) if qwix_baseline.is_installed() else None
  why = 'not in qwix' if qwix_baseline.is_installed() else 'not installed'

  def other(function, *args):
    return why if pair is None else timing.compile(function, *args)

  encode, decode = pair or (None, None)
  yield 'quantize', timing.compile(code, x, key), other(encode, x, key)
  if key is None:
    decoded = lambda q: quantize.dequantize(q, x.dtype)
    yield (
      'dequantize',
      timing.compile(decoded, jax.jit(code)(x, key)),
      other(decode, encode and jax.jit(encode)(x, key)),
    )
  theirs = pair and qwix_baseline.fake(case)
  yield 'fake', timing.compile(fake, x, key), other(theirs, x, key)
  yield (
    'gradient',
    timing.compile(_both_ways(fake), x, key, x),
    other(theirs and _both_ways(theirs), x, key, x),
  )


def _both_ways(f):
  """f(x), and the gradient at x of what has the gradient g at f(x)."""

  def forward_and_back(x, key, g):
    y, pull = jax.vjp(lambda x: f(x, key), x)
    return y, *pull(g)

  return forward_and_back


def _measured(own, other, double, size, repeats) -> dict:
  programs = {'own': own, 'double': double}
  if not isinstance(other, str):
    programs['qwix'] = other
  seconds = timing.best_seconds(programs, repeats)
  mine, theirs = seconds['own'], seconds.get('qwix')
  return {
    'milliseconds': mine.wall * 1e3,
    'times_double': mine.wall / seconds['double'].wall,
    'times_qwix': theirs.wall / mine.wall if theirs else other,
    'cpu_times_qwix': theirs.cpu / mine.cpu if theirs else other,
    'bytes_accessed': own.bytes_accessed and own.bytes_accessed / size,
    'passes': own.passes,
  }


def sweep(params: dict, block: str = 'g64') -> dict:
  """Sixteen formats over all matrices of `params`, compilation included.

  Returns:
    A row; `times_static` says how many times as fast `quantize_grid` is as
    compiling each format.
  """
  names = [f'{name}@{block}' for name in SWEEP]
  weights = [jnp.asarray(w) for w in jax.tree.leaves(params) if w.ndim == 2]

  def together():
    return [quantize.quantize_grid(w, names, axis=0) for w in weights]

  def apart():
    fake = functools.partial(quantize.fake_quantize, axis=0)
    return [[fake(w, name) for name in names] for w in weights]

  seconds = []
  for program in (together, apart):
    jax.clear_caches()
    start = time.perf_counter()
    jax.block_until_ready(program())
    seconds.append(time.perf_counter() - start)
  return {
    'case': 'sweep',
    'dtype': 'float32',
    'what': f'{len(names)} formats, compiled',
    'milliseconds': seconds[0] * 1e3,
    'times_static': seconds[1] / seconds[0],
  }
