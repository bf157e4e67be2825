"""Which expert meets which tile of rows, where rows stay in place.

Rows are sorted by expert, so that tiles and experts meet along a staircase: a
visit is a tile and one of the experts that own rows of it.
"""

import jax
import jax.numpy as jnp
import numpy as np


def count(rows: int, experts: int, block: int) -> int:
  """As many visits as any grouping may need."""
  return -(-rows // block) + experts - 1


def of_groups(rows: int, group_sizes: jax.Array, block: int):
  """(tile, expert, first row, last row + 1), int32 [count] each.

  A visit begins where a tile or an expert does, and ends where the next begins;
  empty ones own no rows, nor do those behind the last group. Tiles and experts
  never decrease.
  """
  tiles = -(-rows // block)
  ends = jnp.cumsum(group_sizes.astype(jnp.int32))
  total = ends[-1]
  of_tiles = jnp.arange(tiles, dtype=jnp.int32) * block
  start = jnp.sort(jnp.concatenate([of_tiles, ends[:-1]]))
  end = jnp.minimum(jnp.append(start[1:], jnp.int32(rows)), total)
  tile = jnp.minimum(start // block, tiles - 1)
  row = jnp.minimum(start, total - 1)  # Who comes late stays with the last.
  expert = jnp.sum(ends[None] <= row[:, None], axis=1, dtype=jnp.int32)
  return tile, expert, start, end


def most(rows: int, experts: int, block: int) -> tuple[np.ndarray, ...]:
  """Visits that move as many bytes as any: all experts that there are rows for.

  For the count of bytes alone; of the rows' bounds nothing depends.
  """
  total = count(rows, experts, block)
  spread = lambda n: np.arange(total, dtype=np.int32) * n // total
  tile, expert = spread(-(-rows // block)), spread(min(rows, experts))
  return tile, expert, expert, expert
