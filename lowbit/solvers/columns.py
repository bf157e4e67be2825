"""GPTQ: quantize column by column, and move each error onward.

Frantar et al., GPTQ, 2022 (arXiv:2210.17323). With U upper triangular and
H^-1 = U^T U, the error of column i, e = (w_i - q_i) / U_ii, is taken out of the
columns after it: W[:, i:] -= e U[i, i:]. Inside a block of columns the updates
are immediate, behind it they are one matrix product (lazy batches).
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp

from lowbit import formats, quantize

BLOCK = 128  # Columns a lazy batch.


def inverse_factor(hessian: jax.Array, damping: float) -> jax.Array:
  """U, upper triangular, with U^T U = (H + damping mean(diag H) I)^-1.

  From a Cholesky factor of the reversed H, so that no inverse is formed: with
  J the reversal, J H J = L L^T gives U = J L^-1 J.

  Args:
    hessian: [in, in], symmetric, positive semi-definite.
    damping: A fraction of the mean diagonal, 0.01 in the paper.
  """
  ridge = damping * jnp.mean(jnp.diagonal(hessian))
  damped = hessian + ridge * jnp.eye(hessian.shape[0], dtype=jnp.float32)
  lower = jnp.linalg.cholesky(damped[::-1, ::-1])
  eye = jnp.eye(hessian.shape[0], dtype=jnp.float32)
  inverse = jax.scipy.linalg.solve_triangular(lower, eye, lower=True)
  return inverse[::-1, ::-1]


def gptq(
  w: jax.Array,
  hessian: jax.Array,
  spec: quantize.Spec | str,
  act_order: bool = False,
  damping: float = 0.01,
  block: int = BLOCK,
  dynamic_groups: bool = False,
) -> quantize.QTensor:
  """Lowers tr((W - Q) H (W - Q)^T) over the codes of Q.

  Scales are fitted before the sweep on the whole of `w` ('static groups'), or,
  with `dynamic_groups`, at the start of each group on its compensated columns;
  the released code fits them on columns that lack the corrections of their own
  lazy block, a quirk that is not kept.

  Args:
    w: Float [out, in].
    hessian: float32 [in, in], the mean of x x^T over calibration inputs.
    spec: Any scalar format with nearest rounding; groups along `in`. The two
      scales of AFPQ are fitted like one, and taken by the weight's sign.
    act_order: Visit columns by falling diagonal of the Hessian.
    damping: A fraction of the mean diagonal that is added to it.
    block: Columns a lazy batch; it does not change the result beyond rounding.
    dynamic_groups: See above; needs group scales and no `act_order`.

  Returns:
    A `QTensor` [out, in], groups along the last axis.

  Raises:
    ValueError: If shapes, values or options do not fit.
  """
  spec = quantize.Spec.parse(spec)
  _check(w, hessian, spec, act_order, dynamic_groups)
  block, group = min(block, w.shape[1]), None
  if dynamic_groups:  # Whole groups in a batch: their fits see all corrections.
    group = spec.block
    block = -(-block // group) * group
  codes, q = _solve(
    w,
    hessian,
    damping,
    spec=spec,
    act_order=act_order,
    block=block,
    group=group,
  )
  return dataclasses.replace(q, codes=codes)


def _check(w, hessian, spec, act_order, dynamic_groups) -> None:
  quantize.check_float(w, 'w')
  if w.ndim != 2 or hessian.shape != (w.shape[1], w.shape[1]):
    raise ValueError(
      f'`w` must be [out, in] and `hessian` [in, in], got {w.shape} and '
      f'{hessian.shape}. Transpose a Flax kernel first.'
    )
  if spec.rounding != 'nearest':
    raise ValueError(f'GPTQ rounds to nearest; got spec {spec}.')
  if isinstance(spec.format, formats.Choice):
    raise ValueError(
      f'GPTQ rounds element by element; got spec {spec}, whose blocks choose '
      'their values. Use solvers.nearest, or another format.'
    )
  if dynamic_groups and (
    act_order or not isinstance(spec.block, int) or spec.scale_format
  ):
    raise ValueError(
      'dynamic_groups needs groups with float32 scales, in their natural '
      f'order; got spec {spec}, {act_order=}.'
    )
  if dynamic_groups and w.shape[1] % spec.block:
    raise ValueError(
      f'dynamic_groups needs groups that divide in={w.shape[1]}; got '
      f'{spec.block}.'
    )


@functools.partial(
  jax.jit, static_argnames=('spec', 'act_order', 'block', 'group')
)
def _solve(w, hessian, damping, *, spec, act_order, block, group):
  w = w.astype(jnp.float32)
  # An input that never fires has no say: its weights are set to zero.
  dead = jnp.diagonal(hessian) == 0
  w = jnp.where(dead[None], 0.0, w)
  hessian = hessian + jnp.diag(dead.astype(jnp.float32))
  q = quantize.quantize(w, spec)
  scale, zero = _wide(q)
  order = jnp.arange(w.shape[1])
  if act_order:
    order = jnp.argsort(-jnp.diagonal(hessian))
  factor = inverse_factor(hessian[order][:, order], damping)
  codes, scale, zero = _sweep(
    w[:, order], factor, scale[:, order], zero[:, order], spec, block, group
  )
  codes = codes[:, jnp.argsort(order)]
  if group:
    q = _regroup(q, scale, zero, group)
  return codes, q


def _wide(q):
  """Scale and zero point of each element; AFPQ: scales above and below 0."""
  if isinstance(q.spec.format, formats.TwoSided):
    return quantize.wide_two_sided(q)
  scale, zero = quantize.wide_scales(q)
  return scale, jnp.zeros_like(scale) if zero is None else zero


def _regroup(q, scale, zero, group):
  """`q` with the scales that the sweep fitted, one a group."""
  zero = zero[:, ::group]
  if isinstance(q.spec.format, formats.TwoSided):
    return dataclasses.replace(q, scale=scale[:, ::group], side=zero)
  codes = None if q.zero is None else zero.astype(q.zero.dtype)
  return dataclasses.replace(q, scale=scale[:, ::group], zero=codes)


def _round(w, scale, zero, spec):
  """Codes and values of columns, for the scales of `_wide`."""
  if isinstance(spec.format, formats.TwoSided):
    step = jnp.where(w < 0, zero, scale)
    codes = spec.format.inner.encode(w / jnp.where(step == 0, jnp.inf, step))
    value = spec.format.inner.decode(codes)
    return codes, value * jnp.where(value < 0, zero, scale)
  safe = jnp.where(scale == 0, jnp.inf, scale)
  y = w / safe
  y = jnp.rint(y) + zero if spec.integer_zero else y + zero
  codes = spec.format.encode(y)
  return codes, (spec.format.decode(codes) - zero) * scale


def _sweep(w, factor, scale, zero, spec, block, group):
  """Runs over blocks of columns; returns codes, scales, zeros [out, in]."""
  columns = w.shape[1]
  pad = -columns % block
  wide = lambda a, value: jnp.pad(a, ((0, 0), (0, pad)), constant_values=value)
  w, scale, zero = wide(w, 0), wide(scale, 1), wide(zero, 0)
  factor = jnp.pad(factor, ((0, pad), (0, pad)))
  tail = jnp.arange(columns, columns + pad)
  factor = factor.at[tail, tail].set(1.0)
  position = jnp.arange(w.shape[1])[None]

  def step(w, start):
    take = lambda a: jax.lax.dynamic_slice_in_dim(a, start, block, 1)
    rows = jax.lax.dynamic_slice_in_dim(factor, start, block, 0)
    codes, errors, s, z = _sweep_block(
      take(w), take(rows), take(scale), take(zero), spec, group
    )
    update = jnp.matmul(errors, rows, precision='highest')
    return jnp.where(position >= start + block, w - update, w), (codes, s, z)

  _, parts = jax.lax.scan(step, w, jnp.arange(0, w.shape[1], block))
  join = lambda a: jnp.moveaxis(a, 0, 1).reshape(w.shape)[:, :columns]
  return tuple(join(a) for a in parts)


def _sweep_block(w, factor, scale, zero, spec, group):
  """One lazy batch: w [out, block], factor [block, block]."""

  def step(j, carry):
    w, codes, errors, scale, zero = carry
    if group:
      scale, zero = jax.lax.cond(
        j % group == 0,
        lambda: _refit(w, scale, zero, j, spec, group),
        lambda: (scale, zero),
      )
    column = lambda a: jax.lax.dynamic_index_in_dim(a, j, 1, keepdims=False)
    code, value = _round(column(w), column(scale), column(zero), spec)
    error = (column(w) - value) / factor[j, j]
    w = w - error[:, None] * factor[j][None]
    codes, errors = codes.at[:, j].set(code), errors.at[:, j].set(error)
    return w, codes, errors, scale, zero

  codes = jnp.zeros(w.shape, spec.format.code_dtype)
  start = (w, codes, jnp.zeros_like(w), scale, zero)
  _, codes, errors, scale, zero = jax.lax.fori_loop(0, w.shape[1], step, start)
  return codes, errors, scale, zero


def _refit(w, scale, zero, j, spec, group):
  """Scales of the group that starts at column j, from its present values."""
  part = jax.lax.dynamic_slice_in_dim(w, j, group, 1)
  s, z = _wide(quantize.quantize(part, spec))
  scale = jax.lax.dynamic_update_slice_in_dim(scale, s, j, 1)
  return scale, jax.lax.dynamic_update_slice_in_dim(zero, z, j, 1)
