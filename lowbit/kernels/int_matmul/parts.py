"""What goes in: rows of activations and columns of weights, taken apart.

A product is a tuple of parts along consecutive ranges of the contraction axis:
one part as a rule, two where a few channels keep 8 bits (Atom,
arXiv:2310.19102; QUIK, arXiv:2310.09259; COMET, arXiv:2410.12168).
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from lowbit import formats, quantize
from lowbit.kernels import operands, storage

Weight = quantize.QTensor | quantize.PackedQTensor


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TwoStage:
  """Weights with group scales for a product in int8 all the same (QQQ).

  The int8 weights are rint(q * ratio), with one `ratio` a group, kept as the
  scale of `q`; `channel` is the scale behind the product. arXiv:2406.09904.
  """

  q: Weight  # [K, N].
  channel: jax.Array  # float32 [1, N].


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Part:
  """x[m, k] w[k, n]: codes, and the scales of groups along K.

  - x = codes * x_scale, w = (code - zero) * op.scale.
  - Two-stage: w = rint(code * op.scale) * channel.
  """

  x: jax.Array  # int8 [M, K].
  x_scale: jax.Array  # float32 [M, groups].
  op: operands.Operands  # [K, N], scale float32.
  channel: jax.Array | None  # float32 [1, N].
  x_group: int = dataclasses.field(metadata={'static': True})

  @property
  def size(self) -> int:
    """K."""
    return self.op.size

  @property
  def group(self) -> int:
    """Codes that share all scales between them and the integer sum."""
    w_group = self.size if self.channel is not None else self.op.group
    return max(min(self.x_group, w_group), 1)

  @property
  def w_scale(self) -> jax.Array:
    """Scales of the weight behind the integer sum, [groups or 1, N]."""
    return self.op.scale if self.channel is None else self.channel

  @property
  def grouped(self) -> bool:
    """Whether scales change along K, behind the integer sum."""
    return self.group < self.size

  def rows(self, start: int, stop: int) -> 'Part':
    """The range start..stop of K; `start` at a chunk and a group."""
    one = self.x_scale.shape[1] == 1
    groups = slice(start // self.x_group, -(-stop // self.x_group))
    return Part(
      self.x[:, start:stop],
      self.x_scale if one else self.x_scale[:, groups],
      self.op.rows(start, stop),
      self.channel,
      stop - start if one else self.x_group,
    )


def two_stage(q: Weight) -> TwoStage:
  """Splits the scales of groups in a ratio and the scale of a channel.

  Args:
    q: Symmetric integer weights [K, N] of at most 7 bits, in groups along K.

  Returns:
    `TwoStage`; the scale of a channel takes its largest weight to 127.

  Raises:
    ValueError: For 8 bits, zero points, or no integers.
  """
  fmt = q.spec.format
  if not isinstance(fmt, formats.Integer) or not fmt.signed or fmt.bits > 7:
    raise ValueError(
      f'Two-stage weights are symmetric integers of at most 7 bits, got '
      f'{q.spec}. Use int4@g128.'
    )
  plain = quantize.unpack(q) if isinstance(q, quantize.PackedQTensor) else q
  weights = jnp.abs(quantize.dequantize(plain))
  largest = jnp.max(weights, axis=-2, keepdims=True)
  channel = jnp.where(largest > 0, largest / 127, 1.0)
  ratio = quantize.scales_of(plain) / channel
  return TwoStage(dataclasses.replace(q, scale=ratio), channel)


def take_apart(x, w) -> tuple[Part, ...]:
  """The parts of a product, each of them checked.

  Raises:
    TypeError, ValueError: If a part is no matrix of integers, or if shapes, or
      groups, do not match.
  """
  xs = x if isinstance(x, tuple) else (x,)
  ws = w if isinstance(w, tuple) else (w,)
  if len(xs) != len(ws) or not xs:
    raise ValueError(
      f'`x` and `w` must have equally many parts, got {len(xs)} and {len(ws)}.'
    )
  parts = tuple(_part(a, b) for a, b in zip(xs, ws))
  shapes = {(p.x.shape[0], p.op.columns) for p in parts}
  if len(shapes) > 1:
    raise ValueError(
      f'All parts must have the same rows of `x` and columns of `w`, got '
      f'{sorted(shapes)}.'
    )
  return parts


def _part(x, w) -> Part:
  channel = w.channel if isinstance(w, TwoStage) else None
  w = w.q if isinstance(w, TwoStage) else w
  x = quantize.unpack(x) if isinstance(x, quantize.PackedQTensor) else x
  _check_rows(x)
  _check_columns(w)
  op = operands.unpacked_zero(operands.take_apart(w))
  scale = operands.decode_scale(op.scale, op.scale_format)
  if op.tensor_scale is not None:
    scale = scale * op.tensor_scale
  op = dataclasses.replace(
    op, scale=scale, scale_format=None, tensor_scale=None
  )
  (m, size), groups = x.shape, x.scale.shape[1]
  if size != op.size:
    raise ValueError(
      f'`x` has {size} columns and `w` {op.size} rows; they must match.'
    )
  x_group = size if groups == 1 else x.spec.block
  cuts = {g for g in (x_group, op.group) if g < size}
  if len(cuts) > 1:
    raise ValueError(
      f'Groups of `x` ({x_group}) and `w` ({op.group}) must be equal, or one '
      'of them the whole axis.'
    )
  x_scale = jnp.broadcast_to(quantize.scales_of(x), (m, groups))
  return Part(x.codes, x_scale, op, channel, x_group)


def _check_rows(x) -> None:
  if not isinstance(x, quantize.QTensor):
    raise TypeError(
      f'`x` must be a QTensor of integers, got {type(x).__name__}. For float '
      'activations use quantized_matmul.'
    )
  fmt = x.spec.format
  good = isinstance(fmt, formats.Integer) and fmt.signed and fmt.bits <= 8
  if not good or x.ndim != 2 or x.axis != (-1,):
    raise ValueError(
      '`x` must be a matrix [M, K] of symmetric integers of at most 8 bits, '
      f'quantized along its last axis, got {x.spec} of shape {x.shape}, axis '
      f"{x.axis}. Use lb.quantize(x, 'int8@token')."
    )


def _check_columns(w) -> None:
  if not isinstance(w, Weight):
    raise TypeError(
      '`w` must be a QTensor, PackedQTensor or TwoStage, got '
      f'{type(w).__name__}.'
    )
  operands.check(w)
  fmt, reasons = w.spec.format, operands.why_not(w)
  if not isinstance(fmt, formats.Integer):
    reasons.append(f'{fmt.name} is no integer format')
  if isinstance(w.spec.block, tuple):
    reasons.append(f'{w.spec} has tiles')
  if w.zero is not None and fmt.bits == 8:
    reasons.append('8-bit codes less their zero point do not fit int8')
  if reasons:
    raise ValueError(
      f'`w` must be a matrix [K, N] of integers: {"; ".join(reasons)}. Use '
      "lb.quantize(w, 'int4@channel', axis=-2)."
    )


def integers(words: jax.Array, s: storage.Storage) -> jax.Array:
  """The codes of a whole chunk: uint8 [rows, n] -> int32 [chunk, n]."""
  return storage.integers(storage.unpack(words, s), s)


def rint_by_floor(x: jax.Array) -> jax.Array:
  """Nearest whole number, ties to even, where there is no rounding op.

  Triton has none that Pallas lowers to; adding and subtracting 1.5 * 2^23 is
  undone by XLA.
  """
  down = jnp.floor(x)
  rest = x - down
  odd = down - np.float32(2) * jnp.floor(down * np.float32(0.5)) > 0
  up = (rest > 0.5) | ((rest == 0.5) & odd)
  return jnp.where(up, down + np.float32(1), down)


def fold(codes: jax.Array, zero=None, ratio=None, rint=jnp.rint) -> jax.Array:
  """int8 weights of int32 codes: less the zero point, or times the ratio.

  Args:
    codes: int32 [k, n].
    zero: int32 that broadcasts against them, or None.
    ratio: float32 of two-stage weights, or None.
    rint: Rounds float32 to whole numbers.
  """
  if zero is not None:
    codes = codes - zero
  if ratio is not None:
    scaled = codes.astype(jnp.float32) * ratio
    scaled = jnp.clip(scaled, np.float32(-127), np.float32(127))
    codes = rint(scaled).astype(jnp.int32)
  return codes.astype(jnp.int8)


def sides(part: Part):
  """(zero, ratio), [groups, N], that `fold` takes."""
  zero = part.op.zero
  zero = None if zero is None else zero.astype(jnp.int32)
  return zero, None if part.channel is None else part.op.scale
