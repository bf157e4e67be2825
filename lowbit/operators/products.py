"""Drop-in products with specs: `jax.lax.dot_general`, einsum, convolution.

For models with params of their own, in any JAX library: either operand may be
a quantized tensor, or be quantized on the way by a spec, along the axes that
are summed.
"""

import jax
import jax.numpy as jnp

from lowbit import formats, kernels, quantize
from lowbit.operators import base

CODED = quantize.QTensor | quantize.PackedQTensor


def dot_general(
  lhs,
  rhs,
  dimension_numbers,
  precision=None,
  preferred_element_type=None,
  *,
  lhs_spec: quantize.Spec | str | None = None,
  rhs_spec: quantize.Spec | str | None = None,
  key: jax.Array | None = None,
  estimator: quantize.Estimator = quantize.straight_through,
  **options,
) -> jax.Array:
  """`jax.lax.dot_general` on float or quantized operands.

  A matrix [in, out] that is summed over `in` runs as `lowbit.matmul` does:
  packed codes by a kernel, operators by their own rule. Two QTensors of
  integers, with a scale for each row of the one and column of the other,
  multiply in integers. All else is decoded.

  Args:
    lhs: Float array or QTensor.
    rhs: Float array, QTensor, PackedQTensor, or operator [in, out].
    dimension_numbers: ((lhs summed, rhs summed), (lhs batch, rhs batch)).
    precision: As in `jax.lax.dot_general`.
    preferred_element_type: dtype of the result; that of the float operands by
      default, float32 if there is none.
    lhs_spec: Spec or name; a float lhs is fake-quantized along its summed axes.
    rhs_spec: Likewise for rhs.
    key: PRNG key, if a spec rounds stochastically.
    estimator: Gradient of the rounding of both.
    **options: Further arguments of `jax.lax.dot_general`.

  Returns:
    As `jax.lax.dot_general`.

  Raises:
    TypeError: If an operand is neither a float array nor quantized.
    ValueError: If a quantized operand comes with a spec.
  """
  (lhs_axes, rhs_axes), batch = dimension_numbers
  keys = _keys(key, lhs_spec, rhs_spec)
  lhs = _ready('lhs', lhs, lhs_spec, tuple(lhs_axes), keys[0], estimator)
  rhs = _ready('rhs', rhs, rhs_spec, tuple(rhs_axes), keys[1], estimator)
  dtype = preferred_element_type or _float_dtype(lhs, rhs)
  is_matrix = len(_shape(rhs)) == 2 and tuple(rhs_axes) in ((0,), (-2,))
  if is_matrix and not any(map(len, batch)):
    y = _matrix_product(lhs, rhs, lhs_axes[0], precision)
    if y is not None:
      return y.astype(dtype)
  lhs, rhs = _decoded(lhs, dtype), _decoded(rhs, dtype)
  return jax.lax.dot_general(
    lhs,
    rhs,
    dimension_numbers,
    precision=precision,
    preferred_element_type=preferred_element_type,
    **options,
  )


def _matrix_product(lhs, rhs, axis, precision):
  """By rows, if `rhs` is coded; None if plain floats remain."""
  if isinstance(lhs, CODED):
    if _is_integer(lhs, -1, axis) and _is_integer(rhs, -2, 0):
      from lowbit.kernels import int_matmul  # `import lowbit` stays light.

      return int_matmul.int_matmul(lhs, rhs)
    lhs = _decoded(lhs, _float_dtype(lhs, rhs))
  if not isinstance(rhs, CODED | base.Operator):
    return None
  return base.matmul(jnp.moveaxis(lhs, axis, -1), rhs, precision)


def _is_integer(q, along: int, axis: int) -> bool:
  """Whether codes of a matrix may be summed along `axis` before scaling."""
  if not isinstance(q, quantize.QTensor) or q.ndim != 2:
    return False
  fmt = q.spec.format
  is_small = isinstance(fmt, formats.Integer) and fmt.signed and fmt.bits <= 8
  return (
    is_small
    and q.zero is None
    and q.axis == (along,)
    and axis % 2 == along % 2
    and not isinstance(q.spec.block, tuple)
    and q.scale.shape[along] == 1
  )


def einsum(
  subscripts: str, lhs, rhs, precision=None, preferred_element_type=None, **how
) -> jax.Array:
  """`jnp.einsum` of two operands, float or quantized.

  Args:
    subscripts: Such as '...i,io->...o'; each letter at most once an operand.
      A letter that only one operand has must be in the result.
    lhs: As in `dot_general`.
    rhs: Likewise.
    precision: Likewise.
    preferred_element_type: Likewise.
    **how: `lhs_spec`, `rhs_spec`, `key`, `estimator`, as in `dot_general`.

  Returns:
    As `jnp.einsum`.

  Raises:
    ValueError: If the subscripts do not name such a product, or do not fit.
  """
  left, right, result = _letters(subscripts, lhs, rhs)
  batch = [c for c in left if c in right and c in result]
  summed = [c for c in left if c in right and c not in result]
  place = lambda text, chosen: tuple(text.index(c) for c in chosen)
  y = dot_general(
    lhs,
    rhs,
    (
      (place(left, summed), place(right, summed)),
      (place(left, batch), place(right, batch)),
    ),
    precision,
    preferred_element_type,
    **how,
  )
  free = lambda text: [c for c in text if c not in batch + summed]
  order = [*batch, *free(left), *free(right)]
  return jnp.transpose(y, [order.index(c) for c in result])


def _letters(subscripts: str, lhs, rhs) -> tuple[str, str, str]:
  """The letters of both operands and of the result, '...' spelled out."""
  inputs, arrow, result = subscripts.replace(' ', '').partition('->')
  left, comma, right = inputs.partition(',')
  if not arrow or not comma or ',' in right:
    raise ValueError(
      "`subscripts` must name two operands and a result, such as 'bi,io->bo', "
      f'got {subscripts!r}.'
    )
  unused = [c for c in map(chr, range(65, 91)) if c not in subscripts]

  def spelled(text, ndim):
    missing = ndim - len(text.replace('...', ''))
    if missing < 0 or (missing and '...' not in text):
      raise ValueError(
        f'`subscripts` {subscripts!r} gives {text!r} to an operand of {ndim} '
        'axes. Name each axis, or write ... for the leading ones.'
      )
    return text.replace('...', ''.join(unused[:missing]))

  rank = lambda text, x: len(_shape(x)) - len(text.replace('...', ''))
  extra = max(rank(left, lhs), rank(right, rhs)) if '...' in result else 0
  left, right = spelled(left, len(_shape(lhs))), spelled(right, _ndim(rhs))
  result = result.replace('...', ''.join(unused[:extra]))
  twice = [t for t in (left, right, result) if len(set(t)) < len(t)]
  lone = set(left) ^ set(right)
  if twice or not set(result) <= {*left, *right} or not lone <= set(result):
    raise ValueError(
      f'`subscripts` {subscripts!r} must be a product: no letter twice in an '
      'operand, every letter of the result from an operand, and a letter that '
      'only one operand has in the result. Take sums and diagonals beforehand.'
    )
  return left, right, result


def conv_general_dilated(
  lhs,
  rhs,
  window_strides,
  padding,
  lhs_dilation=None,
  rhs_dilation=None,
  dimension_numbers=None,
  feature_group_count: int = 1,
  batch_group_count: int = 1,
  precision=None,
  preferred_element_type=None,
  *,
  lhs_spec: quantize.Spec | str | None = None,
  rhs_spec: quantize.Spec | str | None = None,
  key: jax.Array | None = None,
  estimator: quantize.Estimator = quantize.straight_through,
  **options,
) -> jax.Array:
  """`jax.lax.conv_general_dilated` on float or quantized operands.

  Scales lie along the channels of the input, and along the channels and window
  of the kernel. Quantized operands are decoded: there is no packed kernel.

  Args:
    lhs: Input, float or QTensor.
    rhs: Kernel, float, QTensor, PackedQTensor, or an operator whose matrix is
      the kernel [*window, in, out] with all axes but the last flattened.
    window_strides: This and what follows as in `jax.lax`.
    padding: As in `jax.lax`.
    lhs_dilation: As in `jax.lax`.
    rhs_dilation: As in `jax.lax`.
    dimension_numbers: As in `jax.lax`.
    feature_group_count: As in `jax.lax`.
    batch_group_count: As in `jax.lax`.
    precision: As in `jax.lax`.
    preferred_element_type: As in `jax.lax`.
    lhs_spec: As in `dot_general`.
    rhs_spec: Likewise.
    key: Likewise.
    estimator: Likewise.
    **options: Further arguments of `jax.lax.conv_general_dilated`.

  Returns:
    As `jax.lax.conv_general_dilated`.

  Raises:
    TypeError, ValueError: As `dot_general`.
  """
  numbers = jax.lax.conv_dimension_numbers(
    _shape(lhs), _shape(rhs), dimension_numbers
  )
  lhs_axes = (numbers.lhs_spec[1],)
  rhs_axes = tuple(sorted(numbers.rhs_spec[1:]))
  keys = _keys(key, lhs_spec, rhs_spec)
  lhs = _ready('lhs', lhs, lhs_spec, lhs_axes, keys[0], estimator)
  rhs = _ready('rhs', rhs, rhs_spec, rhs_axes, keys[1], estimator)
  dtype = _float_dtype(lhs, rhs)
  return jax.lax.conv_general_dilated(
    _decoded(lhs, dtype),
    _decoded(rhs, dtype),
    window_strides,
    padding,
    lhs_dilation,
    rhs_dilation,
    dimension_numbers,
    feature_group_count,
    batch_group_count,
    precision,
    preferred_element_type,
    **options,
  )


def _ready(name, x, spec, axes, key, estimator):
  """The operand, fake-quantized if it is float and there is a spec."""
  if isinstance(x, CODED) or (name == 'rhs' and isinstance(x, base.Operator)):
    if spec is not None:
      raise ValueError(
        f'`{name}_spec` {spec} was given, and `{name}` is quantized already. '
        'Leave the spec out, or pass the float array.'
      )
    return x
  quantize.check_float(x, name)
  if spec is None:
    return x
  spec = quantize.Spec.parse(spec)
  key = key if spec.rounding == 'stochastic' else None
  axes = tuple(a % x.ndim - x.ndim for a in axes)
  return quantize.fake_quantize(x, spec, axes, key, estimator)


def _keys(key, *specs):
  """A fresh key an operand; None stays None, for `fake_quantize` to refuse."""
  random = [
    s and quantize.Spec.parse(s).rounding == 'stochastic' for s in specs
  ]
  if key is not None and not any(random):
    raise ValueError(
      '`key` was given, and neither spec rounds stochastically. Leave it out, '
      "or use a spec such as 'int4@channel~stochastic'."
    )
  return [None] * 2 if key is None else jax.random.split(key)


def _shape(x) -> tuple[int, ...]:
  return kernels.shape(x) if isinstance(x, CODED) else tuple(x.shape)


def _ndim(x) -> int:
  return len(_shape(x))


def _float_dtype(*operands):
  """The common dtype of the float operands, float32 if there is none."""
  plain = [x.dtype for x in operands if hasattr(x, 'dtype')]
  return jnp.result_type(*plain) if plain else jnp.dtype('float32')


def _decoded(x, dtype):
  if isinstance(x, quantize.PackedQTensor):
    x = quantize.unpack(x)
  if isinstance(x, quantize.QTensor):
    return quantize.dequantize(x, dtype)
  return x.dense().astype(dtype) if isinstance(x, base.Operator) else x
