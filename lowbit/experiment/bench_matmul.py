"""Packed matmuls: what they must move, what they do move, how long it takes.

`python scripts/bench.py --suite=matmul --size=4096`: K = N = size. Columns:

- must_mb, gflop: x, the packed weights and y once each; 2 M K N.
- moves: bytes of the program compiled for v5e over must, where libtpu is
  installed: XLA's count for its own operations, each of which reads and writes
  all its operands, and for a kernel the blocks that its grid fetches and writes
  (`kernels.grid`; a block whose index does not change is not fetched again).
- v5e_us, ...: the roofline, the larger of bytes / bandwidth and flops / peak;
  gain is the same of bf16 weights over it, on an H100.
- us, gb_s, ratio: measured on this machine's device; ratio is the time of the
  dense matmul (bf16, on a CPU float32) over it.
"""

import dataclasses
import importlib.util
import time
from collections.abc import Iterator

import jax
import jax.numpy as jnp

from lowbit.experiment import matmul_cases, targets

ROWS = (1, 16, 2048)


@dataclasses.dataclass(frozen=True)
class Peak:
  """Published peaks of one chip."""

  flops: float  # bf16, dense.
  bandwidth: float  # Bytes a second.

  def seconds(self, moved: float, flops: float) -> float:
    """The least time for so many bytes and flops."""
    return max(moved / self.bandwidth, flops / self.flops)


# cloud.google.com/tpu/docs: v5e, v5p, v6e, system architecture; NVIDIA H100
# Tensor Core GPU data sheet, SXM, without sparsity.
PEAKS = {
  'v5e': Peak(197e12, 819e9),
  'v5p': Peak(459e12, 2765e9),
  'v6e': Peak(918e12, 1600e9),
  'h100': Peak(989e12, 3350e9),
}


def rows(settings) -> Iterator[dict]:
  """Rows of the suite.

  Args:
    settings: `timing.Settings`: K = N = `size`, `repeats` timed runs, and
      `wants(case)` for cases such as 'int4@g128 m16'.
  """
  size = settings.size
  for case in matmul_cases.CASES:
    for m in ROWS:
      name = f'{case.name} m{m}'
      if settings.wants(name):
        yield {'case': name, **_row(case, m, size, settings.repeats)}


def _row(case, m: int, size: int, repeats: int) -> dict:
  must, flops = necessary(case, m, size), case.flops(m, size, size)
  row = {'must_mb': must / 1e6, 'gflop': flops / 1e9}
  if importlib.util.find_spec('libtpu') is not None:
    row['moves'] = moved(case, m, size) / must
  for name, peak in PEAKS.items():
    row[f'{name}_us'] = 1e6 * peak.seconds(must, flops)
  if case.has_weight:
    h100 = PEAKS['h100']
    dense = 2 * (2 * m * size + case.read(m) * size * size)
    row['gain'] = h100.seconds(dense, flops) / h100.seconds(must, flops)
  return row | _measured(case, m, size, repeats, must)


def necessary(case, m: int, size: int) -> float:
  """Bytes of x, y and what must be read of the weights, once each."""
  x, w = matmul_cases.shapes(case, m, size)
  y = jax.eval_shape(case.run, x, w)
  return targets.size((x, y)) + case.read(m) * targets.size(w)


def moved(case, m: int, size: int) -> float:
  """Bytes that the program for a v5e moves; needs its compiler, libtpu."""
  x, w = matmul_cases.shapes(case, m, size)
  program = targets.compile(case.run, targets.NAMED['v5e'], x, w)
  return program.cost_analysis()['bytes accessed']


def _measured(case, m: int, size: int, repeats: int, must: float) -> dict:
  on_cpu = jax.default_backend() == 'cpu'
  if on_cpu and m > 64:  # Seconds a product, and no one serves so.
    return {}
  dtype = jnp.float32 if on_cpu else jnp.bfloat16
  w = jax.random.normal(jax.random.key(0), (size, size), dtype)
  x = jax.random.normal(jax.random.key(1), (m, size), dtype)
  runs = [(jax.jit(case.run), jax.jit(case.operands)(x, w))]
  if case.has_weight:
    runs.append((jax.jit(jnp.matmul), (x, w)))
  least = [float('inf')] * len(runs)
  for turn in range(repeats + 1):  # The first compiles.
    for i, (run, operands) in enumerate(runs):
      start = time.perf_counter()
      jax.block_until_ready(run(*operands))
      if turn:
        least[i] = min(least[i], time.perf_counter() - start)
  row = {'us': 1e6 * least[0], 'gb_s': must / least[0] / 1e9}
  return row | {'ratio': least[1] / least[0]} if case.has_weight else row
