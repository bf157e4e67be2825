"""State of matrices whose rows and columns have scales of their own."""

import dataclasses

import jax
import jax.numpy as jnp

from lowbit import formats, quantize
from lowbit.optim import storage
from lowbit.quantize import packing, scales


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class RankOneTensor:
  """Codes, and the largest magnitude of each slice along each axis."""

  words: jax.Array  # uint8, codes packed along the last axis.
  maxima: tuple[jax.Array, ...]  # float32, one vector an axis.
  format: formats.Format = dataclasses.field(metadata={'static': True})


@dataclasses.dataclass(frozen=True)
class RankOne:
  """The scale of an element is the least of the maxima of its slices.

  For a matrix min(row maximum, column maximum): a scale for each element that
  costs a vector an axis. Vectors and scalars go to `vector`. Li et al., Memory
  Efficient Optimizers with 4-bit States, 2023 (arXiv:2309.01507).
  """

  format: formats.Format | str
  vector: storage.Storage | None = (
    None  # None: blocks of 128 in the same format.
  )

  def __post_init__(self):
    fmt = formats.get(self.format)
    object.__setattr__(self, 'format', fmt)
    if self.vector is None:
      object.__setattr__(self, 'vector', storage.Flat(quantize.Spec(fmt, 128)))

  def encode(self, x, key=None):
    """Stores nearest codes; `key` goes to `vector`."""
    if x.ndim < 2:
      return self.vector.encode(x, key)
    axes = range(x.ndim)
    others = [tuple(a for a in axes if a != axis) for axis in axes]
    maxima = tuple(scales.absmax(x, o).reshape(-1) for o in others)
    scale = _cover(maxima)
    codes = self.format.encode(x / jnp.where(scale == 0, jnp.inf, scale))
    words = packing.pack_codes(codes, self.format.bits)
    return RankOneTensor(words, maxima, self.format)

  def decode(self, stored, shape):
    """See `Storage`."""
    if len(shape) < 2:
      return self.vector.decode(stored, shape)
    storage.check_spec(stored, RankOneTensor, self.format)
    scale = _cover(stored.maxima)
    if scale.shape != tuple(shape):
      raise storage.other(f'shape {scale.shape}', f'a parameter of {shape}')
    codes = packing.unpack_codes(stored.words, self.format.bits, shape[-1])
    return self.format.decode(codes) * scale


def _cover(maxima) -> jax.Array:
  """min over axes of maxima[axis][index along the axis]."""
  grids = [
    m.reshape([-1 if a == axis else 1 for a in range(len(maxima))])
    for axis, m in enumerate(maxima)
  ]
  shape = tuple(m.shape[0] for m in maxima)
  scale = jnp.broadcast_to(grids[0], shape)
  for grid in grids[1:]:
    scale = jnp.minimum(scale, jnp.broadcast_to(grid, shape))
  return scale


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class FactoredTensor:
  """Means over the columns and over the rows of the last two axes."""

  rows: jax.Array  # float32 [..., m].
  columns: jax.Array  # float32 [..., n].


@dataclasses.dataclass(frozen=True)
class Factored:
  """x is about rows columns^T / mean(rows), for non-negative matrices.

  Means are linear, so that storing a moving average is the moving average of
  its means: Adafactor's recursion (Shazeer and Stern, arXiv:1804.04235), and
  the factored second moment of 4-bit AdamW (arXiv:2309.01507). Vectors and
  scalars go to `vector`.
  """

  vector: storage.Storage

  def encode(self, x, key=None):
    """Stores two vectors of means."""
    if x.ndim < 2:
      return self.vector.encode(x, key)
    return FactoredTensor(jnp.mean(x, axis=-1), jnp.mean(x, axis=-2))

  def decode(self, stored, shape):
    """See `Storage`."""
    if len(shape) < 2:
      return self.vector.decode(stored, shape)
    if not isinstance(stored, FactoredTensor):
      raise storage.other(type(stored).__name__, 'FactoredTensor')
    mean = jnp.mean(stored.rows, axis=-1, keepdims=True)
    rows = stored.rows / jnp.where(mean == 0, jnp.ones_like(mean), mean)
    x = rows[..., :, None] * stored.columns[..., None, :]
    if x.shape != tuple(shape):
      raise storage.other(f'shape {x.shape}', f'a parameter of {shape}')
    return x
