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
from lowbit.quantize import qtensor, scales


class Storage(Protocol):
  """What stores a tensor of state."""

  def encode(self, x: jax.Array, key: jax.Array | None) -> Any:
    """Stores a float32 array of any shape."""

  def decode(self, stored: Any, shape: tuple[int, ...]) -> jax.Array:
    """Returns the array of this shape, float32."""


def zeros(shape: tuple[int, ...]) -> jax.Array:
  """float32 zeros that XLA does not know: it would encode them to compile."""
  return jax.lax.optimization_barrier(jnp.zeros(shape, jnp.float32))


@dataclasses.dataclass(frozen=True)
class Flat:
  """Blocks of a row-major flattened tensor, one float32 scale each.

  A tensor smaller than a block is one shorter block; the last block may be
  short; a spec with '!' refuses both. A block of zeros comes back as zeros, in
  formats without zero as well. Codes below 8 bits are packed. Dettmers et al.,
  8-bit Optimizers via Block-wise Quantization, 2021 (arXiv:2110.02861).

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
    check_spec(stored, (quantize.QTensor, quantize.PackedQTensor), self.spec)
    is_packed = isinstance(stored, quantize.PackedQTensor)
    q = quantize.unpack(stored) if is_packed else stored
    if math.prod(q.shape) != math.prod(shape):
      raise other(f'{math.prod(q.shape)} codes', f'a parameter of {shape}')
    return quantize.dequantize(q).reshape(shape)


@dataclasses.dataclass(frozen=True)
class Rows:
  """Blocks along the last axis of a tensor that keeps its shape.

  Codes and scales lie on a mesh as the parameter does, where a flattened tensor
  would be gathered. Otherwise as `Flat`.

  Attributes:
    spec: Spec or its name, such as 'dynamic8@g32'.
  """

  spec: quantize.Spec | str

  def __post_init__(self):
    object.__setattr__(self, 'spec', Flat(self.spec).spec)

  def encode(self, x, key=None):
    """Stores `x` as a QTensor of its shape, packed below 8 bits."""
    if Flat(self.spec).is_plain and key is None:
      q = _encode_plain(x, self.spec)
    else:
      q = quantize.quantize(x, self.spec, -1, key)
    return quantize.pack(q) if self.spec.format.bits < 8 else q

  def decode(self, stored, shape):
    """See `Storage`."""
    check_spec(stored, (quantize.QTensor, quantize.PackedQTensor), self.spec)
    is_packed = isinstance(stored, quantize.PackedQTensor)
    q = quantize.unpack(stored) if is_packed else stored
    if q.shape != tuple(shape):
      raise other(f'codes of {q.shape}', f'a parameter of {shape}')
    return quantize.dequantize(q)


def _encode_plain(x, spec) -> quantize.QTensor:
  """`quantize` along the last axis, but a block of zeros has scale 0.

  It multiplies by 1 / scale, one division a block, and one rounding more.
  """
  blocks = qtensor.blocks_of(x.shape, spec, -1)
  xb = blocks.split(x)
  amax = scales.absmax(xb, blocks.axes)
  scale = scales.guard(scales.divide(amax, spec.format.scale_target), amax)
  is_zero = amax == 0
  # A division last: XLA keeps its result, a selection it would do again for
  # each element, at twice the time.
  inverse = 1 / jnp.where(is_zero, jnp.inf, scale)
  codes = blocks.merge(spec.format.encode(xb * inverse))
  scale = jnp.where(is_zero, 0.0, scale).reshape(blocks.grid)
  return quantize.QTensor(codes, scale, None, spec, (-1,))


def has_zero(fmt: formats.Format) -> bool:
  """Whether 0 is one of the format's values."""
  return bool((fmt.values() == 0).any()) if fmt.bits <= 16 else True


def check_spec(stored, kinds, wanted) -> None:
  """Raises ValueError unless `stored` is one of `kinds` and has this spec."""
  if not isinstance(stored, kinds):
    raise other(type(stored).__name__, str(wanted))
  found = getattr(stored, 'spec', None) or stored.format
  if found != wanted:
    raise other(_name(found), _name(wanted))


def _name(value) -> str:
  return value.name if isinstance(value, formats.Format) else str(value)


def other(found: str, wanted: str) -> ValueError:
  """The error of a state that another optimizer made."""
  return ValueError(
    f'The optimizer state holds {found}, where {wanted} is expected. It was '
    'made by another optimizer, storage or model: restore it with the one that '
    'made it, or begin with `init`.'
  )
