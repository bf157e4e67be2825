"""Packed matmuls: what they must move, what they do move, how long it takes.

`python scripts/bench.py --suite=matmul --size=4096`: K = N = size. Columns:

- must_mb, gflop: x, the packed weights and y once each; 2 M K N.
- moves: bytes of the program compiled for v5e over must, where libtpu is
  installed: XLA counts, and of a kernel takes what its grid fetches.
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

from lowbit import kernels, quantize
from lowbit.experiment import targets

SPECS = (
  'int8@channel',
  'mxfp6_e2m3',
  'int4@channel',
  'int4@g128',
  'int4z@g128',
  'nf4@g64',
  'mxfp4',
  'nvfp4',
  'int3@g128',
  'int2@g128',
  'ternary@channel',
  'int1@g128',
)
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
  for spec in SPECS:
    for m in ROWS:
      case = f'{spec} m{m}'
      if settings.wants(case):
        yield {'case': case, **_row(spec, m, size, settings.repeats)}


def _row(spec: str, m: int, size: int, repeats: int) -> dict:
  dtype = jnp.bfloat16
  x = jax.ShapeDtypeStruct((m, size), dtype)
  pack = lambda w: quantize.pack(quantize.quantize(w, spec, axis=0))
  w = jax.eval_shape(pack, jax.ShapeDtypeStruct((size, size), jnp.float32))
  must = targets.size((x, w)) + m * size * dtype.dtype.itemsize
  dense = 2 * (2 * m * size + size * size)
  flops = 2 * m * size * size
  row = {'must_mb': must / 1e6, 'gflop': flops / 1e9}
  if moved := _moved(x, w):
    row['moves'] = moved / must
  for name, peak in PEAKS.items():
    row[f'{name}_us'] = 1e6 * peak.seconds(must, flops)
  h100 = PEAKS['h100']
  row['gain'] = h100.seconds(dense, flops) / h100.seconds(must, flops)
  return row | _measured(spec, m, size, repeats, must)


def _moved(x, w) -> float | None:
  """Bytes that the program for a v5e moves; None without its compiler."""
  if importlib.util.find_spec('libtpu') is None:
    return None
  program = targets.compile(kernels.dequant_matmul, targets.NAMED['v5e'], x, w)
  return (program.cost_analysis() or {}).get('bytes accessed')


def _measured(spec, m: int, size: int, repeats: int, must: int) -> dict:
  on_cpu = jax.default_backend() == 'cpu'
  if on_cpu and m > 64:  # Seconds a product, and no one serves so.
    return {}
  dtype = jnp.float32 if on_cpu else jnp.bfloat16
  w = jax.random.normal(jax.random.key(0), (size, size), dtype)
  x = jax.random.normal(jax.random.key(1), (m, size), dtype)
  packed = quantize.pack(quantize.quantize(w, spec, axis=0))
  runs = (
    (jax.jit(kernels.dequant_matmul), packed),
    (jax.jit(jnp.matmul), w),
  )
  least = [float('inf')] * 2
  for turn in range(repeats + 1):  # The first compiles.
    for i, (run, weights) in enumerate(runs):
      start = time.perf_counter()
      jax.block_until_ready(run(x, weights))
      if turn:
        least[i] = min(least[i], time.perf_counter() - start)
  ours, dense = least
  return {'us': 1e6 * ours, 'gb_s': must / ours / 1e9, 'ratio': dense / ours}
