"""QTensor, and the way there and back."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from lowbit import formats
from lowbit.formats import base
from lowbit.quantize import blocking, noise, scales, sides
from lowbit.quantize import spec as spec_lib


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class QTensor:
  """A quantized tensor: x is about decode(codes) * scale, block by block.

  - `scale.ndim == codes.ndim`; a scale's shape counts the blocks of each axis.
  - With a zero point, x is about (decode(codes) - zero) * scale; integers have
    an integer zero, other formats a real one.
  - `side` is what a `formats.SideFormat` needs more for each block: the index
    of a `Choice`, or the scale below zero of a `TwoSided`.
  - `axis` counts from the end, so that vmap, scan and sharding over leading
    axes leave it true.
  """

  codes: jax.Array  # `spec.format.code_dtype`, shape of x.
  scale: 'jax.Array | QTensor'  # Floats, codes, or a second level.
  zero: jax.Array | None  # Codes of zero or float32, shape of scale.
  spec: spec_lib.Spec = dataclasses.field(metadata={'static': True})
  axis: tuple[int, ...] = dataclasses.field(metadata={'static': True})
  side: 'jax.Array | QTensor | None' = None  # Shape of scale.

  @property
  def shape(self) -> tuple[int, ...]:
    """Shape of the tensor."""
    return self.codes.shape

  @property
  def ndim(self) -> int:
    """Number of axes."""
    return self.codes.ndim

  @property
  def T(self) -> 'QTensor':
    """The transposed matrix, nothing requantized."""
    return transpose(self)


def blocks_of(
  shape: tuple[int, ...], spec: spec_lib.Spec, axis
) -> blocking.Blocks:
  """How a tensor of this shape is cut; ValueError for an unwanted tail."""
  axis = blocking.normalize_axis(axis, len(shape)) if shape else ()
  blocks = blocking.Blocks(shape, blocking.block_shape(spec.block, shape, axis))
  asked = blocking.asked_shape(spec.block, shape, axis)
  too_long = any(b > n > 0 for b, n in zip(asked, shape))
  if (blocks.ragged or too_long) and not spec.pad:
    raise ValueError(
      f'An array of shape {shape} does not divide in blocks of {spec.block} '
      f'along axis {axis}, and spec {spec} allows no padding. Choose a size '
      "that divides, or drop the '!'."
    )
  return blocks


def check_float(x, name: str = 'x') -> None:
  """Raises TypeError unless `x` is an array of real floats."""
  dtype = getattr(x, 'dtype', None)
  if (
    dtype is None
    or not jnp.issubdtype(dtype, jnp.floating)
    or np.dtype(dtype).itemsize > 8
  ):
    raise TypeError(
      f'`{name}` must be a floating-point array of at most 64 bits, got '
      f'{dtype if dtype is not None else type(x).__name__}. Convert it, for '
      f'example with jnp.asarray({name}, jnp.float32).'
    )


def quantize(
  x: jax.Array,
  spec: spec_lib.Spec | str,
  axis: int | tuple[int, ...] = -1,
  key: jax.Array | None = None,
) -> QTensor:
  """Quantizes an array.

  Args:
    x: float32, bfloat16 or float16 of any shape; computed in float32, to which
      float64 is rounded.
    spec: How, or its name, such as 'int4@g64'. Static under jit.
    axis: The contraction axis (or axes), along which groups run.
    key: PRNG key; needed by stochastic rounding, and by nothing else.

  Returns:
    A `QTensor` of the shape of `x`. A block with a NaN or an infinity decodes
    to NaN, but for casts without a scale (see `scales.Unit`); a block of zeros
    decodes to zeros. No scale is below 2^-126, where float32 flushes: smaller
    blocks keep a coarse step. A scale that is too small for its own format,
    such as up to 2^-10 in e4m3, becomes 0, and so does its block; one that is
    too large saturates, and so do the values of its block (they are NaN in e8m0
    and in formats that do not saturate, such as e4m3_overflow).

  Raises:
    TypeError: If `x` is not floating point.
    ValueError: If the spec or axis does not fit, or the key and the rounding.
  """
  spec = spec_lib.Spec.parse(spec)
  check_float(x)
  check_key(spec.rounding, key)
  axis = blocking.normalize_axis(axis, x.ndim) if x.ndim else ()
  blocks = blocks_of(x.shape, spec, axis)
  return _quantize(jnp.asarray(x), key, spec, axis, blocks)


@functools.partial(jax.jit, static_argnums=(2, 3, 4))
def _quantize(x, key, spec, axis, blocks) -> QTensor:
  xb = blocks.split(x.astype(jnp.float32))
  scale, zero, side = fit(xb, spec, blocks, axis, _store_scale)
  like = QTensor(jnp.zeros(()), scale, zero, spec, axis, side)
  xb = blocks.split(elements(x))
  return dataclasses.replace(like, codes=_encode(xb, like, blocks, key))


def elements(x):
  """`x` as float32, for a pass over its elements.

  Where a scale rule reads the same array, XLA for CPUs would convert bfloat16
  once for both, and write the result to memory: here its bits are moved.
  """
  if x.dtype != jnp.bfloat16:
    return x.astype(jnp.float32)
  high = x.view(jnp.uint16).astype(jnp.uint32) << 16
  return high.view(jnp.float32)


def quantize_with(
  x: jax.Array, like: QTensor, key: jax.Array | None = None
) -> QTensor:
  """Quantizes `x` with the scales, spec and axis of `like` (same shape).

  Raises:
    TypeError: If `x` is not floating point, or `like` no `QTensor`.
    ValueError: If the shapes differ, or the key does not fit the rounding.
  """
  check_qtensor(like, 'like')
  check_float(x)
  check_key(like.spec.rounding, key)
  if x.shape != like.shape:
    raise ValueError(
      f'`x` of shape {x.shape} must have the shape of `like`, {like.shape}. '
      'Quantize it anew, or reshape it.'
    )
  blocks = blocks_of(x.shape, like.spec, like.axis)
  return _quantize_with(jnp.asarray(x), like, key, blocks)


@functools.partial(jax.jit, static_argnums=3)
def _quantize_with(x, like, key, blocks) -> QTensor:
  xb = blocks.split(x.astype(jnp.float32))
  return dataclasses.replace(like, codes=_encode(xb, like, blocks, key))


def fit(xb, spec, blocks, axis, store):
  """Scale, zero point and side data of blocks, all of `blocks.grid`.

  Scales go through `store`: `_store_scale`, or what decodes again.
  """
  fmt, rule, axes = spec.format, spec.scale, blocks.axes
  shaped = lambda a: a.reshape(blocks.grid)

  def stored(scale):
    if isinstance(spec.scale_format, spec_lib.Spec):
      # The scale 1 of a block of zeros must not set the second level's range.
      empty = scales.absmax(xb, axes) == 0
      scale = jnp.where(empty, 0.0, scale)
    return store(shaped(scale), spec.scale_format, axis)

  if isinstance(fmt, formats.Choice):
    scale, index = sides.fit_choice(xb, fmt, rule, axes)
    return stored(scale), None, shaped(index)
  if isinstance(fmt, formats.TwoSided):
    plus, minus = sides.fit_two_sided(xb, fmt, rule, axes)
    return stored(plus), None, stored(minus)
  if not spec.zero_point:
    return stored(rule(xb, fmt, axes)), None, None
  if spec.integer_zero:
    scale, zero = scales.affine(xb, fmt.high, rule, axes)
    return stored(scale), shaped(zero).astype(fmt.code_dtype), None
  scale, zero = sides.affine(xb, fmt, rule, axes)
  return stored(scale), shaped(zero), None


def _store_scale(scale, fmt, axis):
  if fmt is None:
    return scale
  if isinstance(fmt, spec_lib.Spec):
    return quantize(scale, fmt, axis)
  if fmt.bits >= 16 and fmt.dtype is not None:
    return fmt.round(scale).astype(fmt.dtype)  # Saturated first.
  nan = fmt.code_dtype.type(spec_lib.nan_code(fmt))
  return base.where(jnp.isnan(scale), nan, fmt.encode(scale))


def scales_of(q: QTensor) -> jax.Array:
  """The scales of `q` as float32, of shape `q.scale.shape`.

  Of a two-sided format: those of the values above zero.
  """
  return _decode_scale(q.scale, q.spec)


def _decode_scale(scale, spec) -> jax.Array:
  if isinstance(scale, QTensor):
    return dequantize(scale)
  if jnp.issubdtype(scale.dtype, jnp.floating):
    return scale.astype(jnp.float32)
  return spec.scale_format.decode(scale)


def _steps(q: QTensor, blocks, below):
  """Scale of each element, blocked; `below` marks those below zero."""
  plus = blocks.spread(scales_of(q))
  if not isinstance(q.spec.format, formats.TwoSided):
    return plus
  return jnp.where(below, blocks.spread(_decode_scale(q.side, q.spec)), plus)


def _index(q: QTensor, blocks):
  """The members of a `Choice`, to broadcast against a blocked array."""
  is_choice = isinstance(q.spec.format, formats.Choice)
  return blocks.spread(q.side) if is_choice else None


def _encode(xb, like, blocks, key):
  y = scaled(xb, like, blocks)
  return blocks.merge(place(sides.encode, y, like, blocks, key))


def scaled(xb, like, blocks):
  """Blocks in units of their steps, moved by their zero points."""
  step = _steps(like, blocks, xb < 0)
  # A scale that underflowed to 0 decodes to 0 whatever the codes: use 0.
  y = scales.divide(xb, base.where(step == 0, jnp.float32(jnp.inf), step))
  if like.zero is None:
    return y
  is_whole = like.spec.integer_zero and like.spec.rounding == 'nearest'
  y = jnp.rint(y) if is_whole else y
  return y + blocks.spread(like.zero.astype(jnp.float32))


def place(onto, y, like, blocks, key):
  """Scaled blocks onto the format, by `sides.encode` or `sides.round`."""
  spec = like.spec
  draw = None if key is None else noise.uniform(key, y.shape)
  return onto(y, spec.format, _index(like, blocks), spec.rounding, draw)


def check_key(rounding: str, key) -> None:
  """Raises unless a key comes with stochastic rounding, and only with it."""
  if (rounding == 'stochastic') != (key is not None):
    raise ValueError(
      "`key` goes with rounding='stochastic', and only with it; got rounding="
      f'{rounding!r} and key={"None" if key is None else "given"}. Pass '
      'key=jax.random.key(seed), or use ~stochastic in the spec.'
    )
  if key is not None and not _is_key(key):
    raise TypeError(
      '`key` must be one PRNG key, got '
      f'{getattr(key, "dtype", type(key).__name__)} of shape {np.shape(key)}. '
      'Make it with jax.random.key(seed); map over several with jax.vmap.'
    )


def _is_key(key) -> bool:
  """Whether it is one key, new style or raw."""
  dtype = getattr(key, 'dtype', None)
  if dtype is None:
    return False
  if jnp.issubdtype(dtype, jax.dtypes.prng_key):
    return key.ndim == 0
  return dtype == np.uint32 and key.ndim == 1


def check_qtensor(q, name: str) -> None:
  """Raises TypeError unless `q` is a `QTensor`."""
  if not isinstance(q, QTensor):
    got = f'a {q.dtype} array' if hasattr(q, 'dtype') else type(q).__name__
    raise TypeError(
      f'`{name}` must be a QTensor, got {got}. Make one with '
      'quantize(x, spec); unpack gives that of a PackedQTensor.'
    )


def _blocks(q: QTensor) -> blocking.Blocks:
  """The blocks of a QTensor, from its shapes; true under vmap and stacking."""
  shape, grid = q.codes.shape, q.scale.shape
  wanted = blocking.block_shape(q.spec.block, shape, q.axis) if shape else ()
  lengths = []
  for n, count, b in zip(shape, grid, wanted):
    if count == n:
      lengths.append(1)
    elif count == 1:
      lengths.append(n)
    else:
      lengths.append(b)
  return blocking.Blocks(shape, tuple(lengths))


@functools.partial(jax.jit, static_argnums=1)
def dequantize(q: QTensor, dtype=jnp.float32) -> jax.Array:
  """Decodes a `QTensor` to an array of its shape, computed in float32.

  Raises:
    TypeError: If `q` is no `QTensor`, or `dtype` not floating point.
  """
  check_qtensor(q, 'q')
  if not jnp.issubdtype(dtype, jnp.floating):
    raise TypeError(
      f'`dtype` must be floating point, got {np.dtype(dtype)}. The codes of a '
      'QTensor are q.codes.'
    )
  blocks = _blocks(q)
  index = _index(q, blocks)
  values = sides.decode(blocks.split(q.codes), q.spec.format, index)
  return unscale(values, q, blocks).astype(dtype)


def unscale(values, like, blocks):
  """The inverse of `scaled`, merged."""
  step = _steps(like, blocks, values < 0)
  if like.zero is not None:
    values = values - blocks.spread(like.zero.astype(jnp.float32))
  return blocks.merge(values * step)


def wide_scales(q: QTensor) -> tuple[jax.Array, jax.Array | None]:
  """Scale and zero point of every element: float32 arrays like `q.codes`.

  Raises:
    ValueError: For a format with side data, whose elements need more.
  """
  check_one_scale(q.spec.format)
  blocks = _blocks(q)
  ones = blocks.split(jnp.ones(q.shape, jnp.float32))
  wide = lambda s: blocks.merge(ones * blocks.spread(s.astype(jnp.float32)))
  return wide(scales_of(q)), None if q.zero is None else wide(q.zero)


def check_one_scale(fmt: formats.Format) -> None:
  """Raises ValueError for formats with side data."""
  if isinstance(fmt, formats.SideFormat):
    raise ValueError(
      f'{fmt.name} has side data for each block; what asks for one scale an '
      'element, such as GPTQ, cannot use it. Take the inner format.'
    )


def wide_two_sided(q: QTensor) -> tuple[jax.Array, jax.Array]:
  """Scales above and below zero of every element of a two-sided `q`."""
  blocks = _blocks(q)
  ones = blocks.split(jnp.ones(q.shape, jnp.float32))
  wide = lambda s: blocks.merge(ones * blocks.spread(s))
  return wide(scales_of(q)), wide(_decode_scale(q.side, q.spec))


def transpose(q: QTensor) -> QTensor:
  """The transposed matrix [.., m, n] -> [.., n, m], nothing requantized."""
  check_qtensor(q, 'q')
  if q.ndim < 2:
    raise ValueError(f'`q` of shape {q.shape} has no two axes to swap.')

  def swap(a):
    if isinstance(a, QTensor):
      return transpose(a)
    return None if a is None else jnp.swapaxes(a, -1, -2)

  flip = {-1: -2, -2: -1}
  axis = tuple(sorted(flip.get(a, a) for a in q.axis))
  return QTensor(
    swap(q.codes), swap(q.scale), swap(q.zero), q.spec, axis, swap(q.side)
  )
