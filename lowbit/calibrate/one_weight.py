"""The operator of one weight by its rule, at once or when a pass meets it."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from lowbit import intercept, operators, quantize, solvers, transforms


def quantize_weight(
  w: jax.Array,
  rule: intercept.Rule,
  stats: solvers.Statistics | None = None,
  axes: tuple[int, ...] = (-2,),
):
  """The operator of one weight under one rule.

  Args:
    w: Flax kernel; contracted along `axes`, [in, out] by default, with leading
      axes for stacked layers (solved together, under vmap).
    rule: What to do; `rule.weight` may be None (activations alone).
    stats: Statistics of the layer's input, if the solver needs them.
    axes: Contracted axes, negative.

  Returns:
    An operator over [in, out]; for a weight of more axes whose solver needs no
    statistics, one over its own shape.

  Raises:
    ValueError: If the solver needs statistics and there are none.
  """
  if rule.needs_statistics and stats is None:
    raise ValueError(
      f"{type(rule.solver).__name__} needs statistics of the layer's input, "
      f'and the weight of shape {w.shape} has none. Pass `stats`; for a look-'
      'up table (Embed), which has no input to weigh, use solvers.Nearest().'
    )
  if w.ndim == 2 and axes == (-2,):
    return _quantize_matrix(w, rule, stats)
  stacked = stats is not None and stats.hessian.ndim == 3
  if w.ndim == 3 and axes == (-2,) and (stacked or not rule.rotate):
    if stats is None:
      return jax.vmap(lambda w: _quantize_matrix(w, rule, None))(w)
    return jax.vmap(lambda w, s: _quantize_matrix(w, rule, s))(w, stats)
  if rule.rotate or rule.needs_statistics:
    return _quantize_flat(w, rule, stats, axes)
  op = operators.Matrix(w)
  if rule.weight is not None:
    op = operators.Coded(quantize.quantize(w, rule.weight, axes))
  return _with_input(op, rule)


def _quantize_flat(w, rule, stats, axes):
  """A weight of many axes as one matrix [in, out]."""
  moved = jnp.moveaxis(w, axes, range(len(axes)))
  size = int(np.prod([w.shape[a] for a in axes]))
  if [a % w.ndim for a in axes] != list(range(len(axes))):
    raise ValueError(
      f'A weight of shape {w.shape} contracted along {axes} is no matrix. '
      'Give it a rule with solvers.Nearest() and without rotation.'
    )
  return _quantize_matrix(moved.reshape(size, -1), rule, stats)


def _quantize_matrix(w, rule, stats):
  w = w.astype(jnp.float32)
  rotation = None
  if rule.rotate:
    width = w.shape[0]
    block = transforms.largest_block(width)
    rotation = transforms.Hadamard(width, None if block == width else block)
    w = rotation(w.T).T  # H^T W.
    stats = None if stats is None else solvers.rotate(stats, rotation)
  op = operators.Matrix(w)
  if rule.weight is not None:
    q = rule.solver(w.T, stats, rule.weight)  # Solvers see [out, in].
    op = operators.Coded(quantize.transpose(q))
  op = _with_input(op, rule)
  return op if rotation is None else operators.Rotated(op, left=rotation)


def _with_input(op, rule):
  if rule.activation is None:
    return op
  return operators.QuantizeInput(op, rule.activation)


def one_after_another(chosen, leaves: dict, rows, way_out: str):
  """Handler that quantizes each layer when an eager pass first meets it.

  Args:
    chosen: Path -> rule.
    leaves: Gets path -> operator.
    rows: Call -> the layer's inputs as [..., in].
    way_out: For layers in a traced loop, which the error ends with.
  """

  def handler(call):
    if isinstance(call.x, jax.core.Tracer):
      raise ValueError(
        f'{call.path} lies in a traced loop (scan, jit, remat): sequential '
        f'calibration needs unrolled layers. {way_out}'
      )
    rule = chosen[call.path]
    if call.path not in leaves and rule.changes:
      stats = None
      if rule.needs_statistics and call.found.input_axes is not None:
        stats = _observe(rows(call))
      leaves[call.path] = quantize_weight(
        call.weight, rule, stats, call.found.weight_axes
      )
    leaf = leaves.get(call.path, call.weight)
    return intercept.serve(dataclasses.replace(call, weight=leaf))

  return handler


_observe = jax.jit(solvers.observe)
