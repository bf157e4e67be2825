"""How one tensor of optimizer state lies in memory.

A storage is a frozen value with `encode(x, key) -> pytree` and
`decode(stored, shape) -> float32`. What it stores carries no shape of the
parameter, so that vmap, scan over stacked layers, sharding and checkpoints
take it as it is.
"""

import dataclasses
import math
from typing import Any, Protocol

import jax
import jax.numpy as jnp

from lowbit import formats, quantize
from lowbit.quantize import blocking, packing, scales

SMALLEST = 1e-4  # Of the largest level: below it a zero does little harm.


class Storage(Protocol):
  """What stores a tensor of state."""

  def encode(self, x: jax.Array, key: jax.Array | None) -> Any:
    """Stores a float32 array of any shape."""

  def decode(self, stored: Any, shape: tuple[int, ...]) -> jax.Array:
    """Returns the array of this shape, float32."""


@dataclasses.dataclass(frozen=True)
class Flat:
  """Blocks of a row-major flattened tensor, one float32 scale each.

  A tensor smaller than a block is one shorter block; the last block may be
  short. A block of zeros comes back as zeros, in formats without zero as well.
  Codes below 8 bits are packed. Dettmers et al., 8-bit Optimizers via
  Block-wise Quantization, 2021 (arXiv:2110.02861).

  Attributes:
    spec: Spec or its name, such as 'dynamic8@g256'; its groups run along the
      flattened tensor.
  """

  spec: quantize.Spec | str

  def __post_init__(self):
    spec = quantize.Spec.parse(self.spec)
    object.__setattr__(self, 'spec', spec)
    if not (self.is_plain or has_zero(spec.format) or spec.zero_point):
      raise ValueError(
        f'`spec` {spec} cannot store a block of zeros: its format has no zero. '
        'Use plain float32 absmax scales and nearest rounding (@g128), or a '
        'format with a zero.'
      )

  @property
  def is_plain(self) -> bool:
    """Whether float32 absmax scales and nearest rounding are all there is."""
    s = self.spec
    plain = quantize.Spec(s.format, s.block, zero_point=s.zero_point, pad=s.pad)
    is_scalar = not isinstance(s.format, formats.SideFormat)
    return s == plain and is_scalar and not s.zero_point

  def encode(self, x, key=None):
    """Stores `x` as a QTensor of one axis, packed below 8 bits."""
    x = x.reshape(-1)
    if self.is_plain and key is None:
      q = _encode_plain(x, self.spec)
    else:
      q = quantize.quantize(x, self.spec, -1, key)
    return quantize.pack(q) if self.spec.format.bits < 8 else q

  def decode(self, stored, shape):
    """See `Storage`."""
    _check_spec(stored, (quantize.QTensor, quantize.PackedQTensor), self.spec)
    is_packed = isinstance(stored, quantize.PackedQTensor)
    q = quantize.unpack(stored) if is_packed else stored
    if math.prod(q.shape) != math.prod(shape):
      raise _other(f'{math.prod(q.shape)} codes', f'a parameter of {shape}')
    return quantize.dequantize(q).reshape(shape)


def _encode_plain(x, spec) -> quantize.QTensor:
  """`quantize` of a vector, but a block of zeros has scale 0.

  It multiplies by 1 / scale, one division a block, and one rounding more.
  """
  blocks = quantize.Blocks(
    x.shape, blocking.block_shape(spec.block, x.shape, (-1,))
  )
  xb = blocks.split(x)
  scale = spec.scale(xb, spec.format, blocks.axes)
  is_zero = scales.absmax(xb, blocks.axes) == 0
  inverse = jnp.where(is_zero, 0.0, 1 / scale)
  codes = blocks.merge(spec.format.encode(xb * inverse))
  scale = jnp.where(is_zero, 0.0, scale).reshape(blocks.grid)
  return quantize.QTensor(codes, scale, None, spec, (-1,))


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
  vector: Storage | None = None  # None: blocks of 128 in the same format.

  def __post_init__(self):
    fmt = formats.get(self.format)
    object.__setattr__(self, 'format', fmt)
    if self.vector is None:
      object.__setattr__(self, 'vector', Flat(quantize.Spec(fmt, 128)))

  def encode(self, x, key=None):
    """Stores nearest codes; `key` goes to `vector`."""
    if x.ndim < 2:
      return self.vector.encode(x, key)
    axes = range(x.ndim)
    others = [tuple(a for a in axes if a != axis) for axis in axes]
    maxima = tuple(jnp.max(jnp.abs(x), axis=o, initial=0.0) for o in others)
    scale = _cover(maxima)
    codes = self.format.encode(x / jnp.where(scale == 0, jnp.inf, scale))
    words = packing.pack_codes(codes, self.format.bits)
    return RankOneTensor(words, maxima, self.format)

  def decode(self, stored, shape):
    """See `Storage`."""
    if len(shape) < 2:
      return self.vector.decode(stored, shape)
    _check_spec(stored, RankOneTensor, self.format)
    scale = _cover(stored.maxima)
    if scale.shape != tuple(shape):
      raise _other(f'shape {scale.shape}', f'a parameter of {shape}')
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

  vector: Storage

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
      raise _other(type(stored).__name__, 'FactoredTensor')
    mean = jnp.mean(stored.rows, axis=-1, keepdims=True)
    rows = stored.rows / jnp.where(mean == 0, jnp.ones_like(mean), mean)
    x = rows[..., :, None] * stored.columns[..., None, :]
    if x.shape != tuple(shape):
      raise _other(f'shape {x.shape}', f'a parameter of {shape}')
    return x


def has_zero(fmt: formats.Format) -> bool:
  """Whether 0 is one of the format's values."""
  return bool((fmt.values() == 0).any()) if fmt.bits <= 16 else True


def check_second_moment(storage: Storage) -> None:
  """Raises ValueError where a second moment would fall to zero and diverge.

  The update divides by the root of the second moment. Where small entries of a
  block become zero, it explodes: a format must exclude zero, or have a value
  below 1e-4 of its largest, as the 8-bit dynamic tree, e4m3 and e5m2 do.
  """
  if isinstance(storage, Factored):
    return check_second_moment(storage.vector)
  fmt = storage.format if isinstance(storage, RankOne) else storage.spec.format
  if fmt.bits > 16 or not has_zero(fmt):
    return None
  values = fmt.values()
  smallest = float(values[values > 0].min() / values.max())
  if smallest <= SMALLEST:
    return None
  raise ValueError(
    f'A second moment cannot be stored as {fmt.name}: below {smallest / 2:.3g} '
    'of its largest value an entry becomes 0, and the update, divided by its '
    'root, explodes. Use a format without zero (linear0_4, de0_4), or one that '
    'reaches far down (udynamic8, e5m2).'
  )


def _check_spec(stored, kinds, wanted) -> None:
  if not isinstance(stored, kinds):
    raise _other(type(stored).__name__, str(wanted))
  found = getattr(stored, 'spec', None) or stored.format
  if found != wanted:
    raise _other(_name(found), _name(wanted))


def _name(value) -> str:
  return value.name if isinstance(value, formats.Format) else str(value)


def _other(found: str, wanted: str) -> ValueError:
  return ValueError(
    f'The optimizer state holds {found}, where {wanted} is expected. It was '
    'made by another optimizer, storage or model: restore it with the one that '
    'made it, or begin with `init`.'
  )
