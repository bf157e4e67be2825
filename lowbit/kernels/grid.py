"""Blocks of a Pallas TPU kernel as data: for pallas_call, and to count bytes.

XLA knows only the sizes of a kernel's operands. What a kernel moves follows
from its grid: a block is fetched whenever its index differs from the one
before, the last axis of the grid runs fastest.
"""

import dataclasses
from collections.abc import Callable

import jax
import numpy as np
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu


@dataclasses.dataclass(frozen=True)
class Block:
  """One operand of a kernel, cut in blocks of `shape`.

  Attributes:
    shape: Of a block.
    index: Maps grid indices to the block's index.
  """

  shape: tuple[int, ...]
  index: Callable

  @property
  def spec(self) -> pl.BlockSpec:
    """As `pallas_call` wants it."""
    return pl.BlockSpec(self.shape, self.index)

  def moved(self, grid: tuple[int, ...], array) -> int:
    """Bytes that go between HBM and VMEM; what lies outside is not moved."""
    steps = np.indices(grid).reshape(len(grid), -1)
    at = self.index(*steps)
    at = np.stack([np.broadcast_to(a, steps.shape[1:]) for a in at])
    fresh = np.ones(at.shape[1], bool)
    fresh[1:] = (at[:, 1:] != at[:, :-1]).any(axis=0)
    inside = np.ones(at.shape[1], np.int64)
    for a, size, length in zip(at, self.shape, array.shape):
      inside *= np.clip(length - a * size, 0, size)
    return int(inside[fresh].sum()) * np.dtype(array.dtype).itemsize


def cost(
  grid: tuple[int, ...],
  pairs: list[tuple[Block, jax.ShapeDtypeStruct]],
  flops: int,
) -> pl.CostEstimate:
  """What XLA is told of a kernel: flops, and the bytes of all its blocks."""
  moved = sum(block.moved(grid, array) for block, array in pairs)
  return pl.CostEstimate(flops=flops, transcendentals=0, bytes_accessed=moved)


def pallas_call(
  kernel, *, grid, in_specs, out_specs, out_shape, scalars=(), **options
):
  """`pl.pallas_call` that tells XLA which bytes its blocks move.

  Args:
    kernel: As in `pl.pallas_call`, and so all that follows.
    grid: Static.
    in_specs: A tree of block specs like the arguments.
    out_specs: A tree of them like `out_shape`.
    out_shape: As in `pl.pallas_call`.
    scalars: NumPy arrays that stand for the first arguments, if those are
      prefetched for the index maps to read. Bytes are counted with them, so
      that they should move as many as any.
    **options: Further ones.
  """
  scratch = options.pop('scratch_shapes', ())

  def run(*args):
    specs = jax.tree.leaves((in_specs, out_specs), is_leaf=_is_spec)
    arrays = jax.tree.leaves((args[len(scalars) :], out_shape))
    index = lambda s: lambda *at: s.index_map(*at, *scalars)
    blocks = [Block(s.block_shape, index(s)) for s in specs]
    estimate = cost(grid, list(zip(blocks, arrays, strict=True)), flops=0)
    return pl.pallas_call(
      kernel,
      grid_spec=pltpu.PrefetchScalarGridSpec(
        num_scalar_prefetch=len(scalars),
        grid=grid,
        in_specs=in_specs,
        out_specs=out_specs,
        scratch_shapes=scratch,
      ),
      out_shape=out_shape,
      cost_estimate=estimate,
      **options,
    )(*args)

  return run


def _is_spec(x) -> bool:
  return isinstance(x, pl.BlockSpec)
