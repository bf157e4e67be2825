"""Calibrates and quantizes a whole Linen model by a recipe."""

from collections.abc import Iterable, Mapping

import jax
import jax.numpy as jnp
from flax import linen as nn

from lowbit import intercept, operators, quantize, solvers
from lowbit.calibrate import one_weight
from lowbit.transforms import structure


def calibrate(
  model: nn.Module, params: Mapping, batches: Iterable
) -> dict[str, solvers.Statistics]:
  """Statistics of the input of every product with a weight.

  One jitted pass over all batches; params may hold operators. A scanned layer
  gives statistics with a leading layer axis.

  Args:
    model: A Linen model.
    params: Its params.
    batches: Inputs of the model, at least one: arrays, tuples of arguments, or
      dicts of arguments by name.

  Returns:
    Weight path -> `solvers.Statistics`.

  Raises:
    ValueError: If there is no batch, or a matmul weight was not met by the
      interceptor; the paths are listed.
  """
  batches = list(batches)
  if not batches:
    raise ValueError(
      '`batches` is empty. Give at least one batch of model inputs.'
    )
  total = None
  for batch in batches:
    seen = _record(model, params, batch)
    total = (
      seen
      if total is None
      else jax.tree.map(solvers.merge, total, seen, is_leaf=_is_statistics)
    )
  found = jax.tree_util.tree_leaves_with_path(total, is_leaf=_is_statistics)
  stats = {'/'.join(k.key for k in path): leaf for path, leaf in found}
  missed = _float_weights(model, params, batches[0]) - set(stats)
  if missed:
    raise ValueError(_missed(missed))
  return stats


def _is_statistics(x) -> bool:
  return isinstance(x, solvers.Statistics)


def _record(model, params, batch):
  with intercept.intercept(None, 'record'):
    return _recorder(model)(params, batch)


_RECORDERS: dict = {}


def _recorder(model):
  """The jitted recording pass of a model, one for each model value."""
  if model not in _RECORDERS:

    def run(params, batch):
      _, state = _run(model, params, batch, mutable=[intercept.STATISTICS])
      return state.get(intercept.STATISTICS, {})

    _RECORDERS[model] = jax.jit(run)
  return _RECORDERS[model]


def _run(model, params, batch, **options):
  """model.apply on one batch: an array, a tuple, or arguments by name."""
  variables = {'params': params}
  if isinstance(batch, tuple):
    return model.apply(variables, *batch, **options)
  if isinstance(batch, Mapping):
    return model.apply(variables, **batch, **options)
  return model.apply(variables, batch, **options)


def _missed(paths) -> str:
  return (
    f'The model multiplies with {", ".join(sorted(paths))} outside of the '
    'Flax layers that lowbit meets. Use lowbit.intercept.matmul(self, x, '
    'name, ...) for a weight that is declared by hand, or nn.scan with '
    'variable_axes={True: 0} for layers whose statistics got lost.'
  )


def _float_weights(model, params, batch) -> set[str]:
  """Paths of the float weights that the model multiplies with."""
  with intercept.intercept(None, 'serve'):
    run = lambda params, batch: _run(model, params, batch)
    found = intercept.matmuls(run, _arrays(params), batch)
  whole = lambda x: isinstance(x, operators.Operator | quantize.QTensor)
  leaves = jax.tree_util.tree_leaves_with_path(params, is_leaf=whole)
  plain = {'/'.join(str(k.key) for k in p) for p, x in leaves if not whole(x)}
  return {m.path for m in found} & plain


def _arrays(params):
  is_shape = lambda x: isinstance(x, jax.ShapeDtypeStruct)
  return jax.tree.map(lambda x: x if is_shape(x) else jnp.asarray(x), params)


def _check_finite(params) -> None:
  for path, leaf in jax.tree_util.tree_leaves_with_path(params):
    name = '/'.join(str(getattr(k, 'key', k)) for k in path)
    if jnp.issubdtype(leaf.dtype, jnp.complexfloating):
      raise TypeError(f'`params` {name} is complex; weights must be real.')
    if jnp.issubdtype(leaf.dtype, jnp.floating) and not bool(
      jnp.all(jnp.isfinite(leaf))
    ):
      raise ValueError(
        f'`params` {name} holds NaN or Inf. A quantizer would spread it over '
        'its block; mend the weights first.'
      )


def quantize_model(
  model: nn.Module, params: Mapping, recipe: intercept.Recipe, batches=()
) -> dict:
  """Quantizes a model's weights by a recipe.

  Args:
    model: A Linen model, unaware of quantization.
    params: Its float params.
    recipe: What to do with which weight.
    batches: Model inputs for calibration, as in `calibrate`; at least one is
      needed, if only for its shape.

  Returns:
    Params with operators where `apply` (or mode 'serve') meets them.

  Raises:
    ValueError: If weights are not finite, batches are empty, a rule matches
      nothing, a matmul weight has no rule, or the model multiplies outside of
      the layers that can be met. All before any long work starts.
  """
  batches = _nonempty(batches)
  params = _arrays(params)
  _check_finite(params)
  chosen, met = matched(model, params, recipe, batches[0])
  params = prepare(model, params, recipe, batches)
  params = _arrays(params)
  if recipe.sequential:
    return _sequential(model, params, chosen, batches)
  needed = any(rule.needs_statistics for rule in chosen.values())
  stats = calibrate(model, params, batches) if needed else {}
  leaves = {}
  for path, rule in chosen.items():
    if not rule.changes:
      continue
    weight = structure.get(params, path)
    leaves[path] = one_weight.quantize_weight(
      weight, rule, stats.get(path), met[path]
    )
  return structure.replace(params, leaves)


def _nonempty(batches) -> list:
  batches = list(batches)
  if not batches:
    raise ValueError(
      '`batches` is empty. Give at least one batch of model inputs; a recipe '
      'for weights alone reads its shape.'
    )
  return batches


def matched(
  model: nn.Module, params: Mapping, recipe: intercept.Recipe, batch
) -> tuple[dict[str, intercept.Rule], dict[str, tuple[int, ...]]]:
  """The rule of every weight that a model multiplies with; nothing is run.

  Args:
    model: A Linen model.
    params: Its float params, or their shapes (`jax.ShapeDtypeStruct`).
    recipe: What to do with which weight.
    batch: Inputs of the model, or their shapes.

  Returns:
    (path -> rule, path -> the weight's contracted axes).

  Raises:
    ValueError: If a rule matches nothing, a weight has no rule, or the model
      multiplies outside of the layers that can be met.
  """
  met = _met(lambda p, b: _run(model, p, b), params, batch)
  missed = _float_weights(model, params, batch) - set(met)
  if missed:
    raise ValueError(_missed(missed))
  return recipe.match(met), met


def prepare(
  model: nn.Module, params: Mapping, recipe: intercept.Recipe, batches
) -> dict:
  """Params after the steps that come before quantization, `recipe.prepare`.

  Args:
    model: A Linen model.
    params: Its float params.
    recipe: Whose steps to do.
    batches: Model inputs, for steps that look at statistics.
  """
  for step in recipe.prepare:
    params = step(
      params, lambda params=params: calibrate(model, params, batches)
    )
  return _arrays(params)


def _met(run, params, *args) -> dict[str, tuple[int, ...]]:
  """Contracted axes of every weight that the interceptor meets."""
  met = {}

  def handler(call):
    met.setdefault(call.path, call.found.weight_axes)
    return intercept.serve(call)

  with intercept.handling(handler):
    jax.eval_shape(run, params, *args)
  return met


def _application(model, kwargs):
  return lambda params, *args: model.apply({'params': params}, *args, **kwargs)


_SEQUENTIAL = 'sequential'


def _sequential(model, params, chosen, batches) -> dict:
  """Quantizes each layer when the forward pass first meets it.

  The pass is not jitted: each layer sees the outputs of those before it as
  quantized, and q, k, v of one block the same inputs (true sequential).
  """
  leaves = {}
  handler = one_weight.one_after_another(
    chosen,
    leaves,
    intercept.rows,
    'Unstack the params (models.decoder.unstack), or set sequential=False.',
  )
  inputs = jax.tree.map(lambda *xs: jnp.concatenate(xs), *batches)
  # No product is traced here, so what is compiled does not know the handler:
  # one key for all of them, and nothing is compiled again.
  with intercept.handling(handler, key=_SEQUENTIAL):
    _run(model, params, inputs)
  return structure.replace(params, leaves)


def init_quantizers(
  model: nn.Module, params: Mapping, recipe: intercept.Recipe, *args, **kwargs
) -> dict:
  """What the learned and static quantizers of a recipe start from.

  Args:
    model: A Linen model.
    params: Its float params.
    recipe: Some of its rules hold `quantize.Lsq`, `quantize.Static`, ...
    *args: Inputs of the model, representative ones.
    **kwargs: For model.apply.

  Returns:
    A tree like `params`, for the `quantizers` of `apply`; it trains beside the
    params under any optimizer (static scales get gradients of zero).
  """
  recipe.match(_met(_application(model, kwargs), params, *args))

  def run(params, *args):
    with intercept.handling(intercept.initialize(recipe)):
      _, state = model.apply(
        {'params': params}, *args, mutable=[intercept.QUANTIZERS], **kwargs
      )
    return state.get(intercept.QUANTIZERS, {})

  return jax.jit(run)(_arrays(params), *args)


def apply(
  model: nn.Module,
  params: Mapping,
  *args,
  recipe: intercept.Recipe | None = None,
  quantizers: Mapping | None = None,
  step: jax.Array | None = None,
  variables: Mapping | None = None,
  **kwargs,
):
  """model.apply({'params': params}, *args) under the right interceptor.

  Args:
    model: A Linen model.
    params: Float params, or params with operators from `quantize_model`.
    *args: Inputs of the model.
    recipe: Given, it is simulated on float params (differentiable, forward and
      backward); None serves whatever the params hold.
    quantizers: From `init_quantizers`, for a recipe that learns.
    step: Training step, for a recipe with a schedule.
    variables: Other collections, such as the histories of delayed scales.
    **kwargs: For model.apply: rngs={'lowbit': key} for stochastic rounding,
      mutable=['lowbit_delayed'] to keep histories, ...

  Returns:
    What model.apply returns.
  """
  mode = 'serve' if recipe is None else 'simulate'
  everything = {**(variables or {}), 'params': params}
  if quantizers is not None:
    everything[intercept.QUANTIZERS] = quantizers
  met = None if recipe is None else set()
  with intercept.intercept(recipe, mode, step, met):
    y = model.apply(everything, *args, **kwargs)
  if recipe is not None and not recipe.fits(met):
    # A part of the model that was traced before is not met again: look anew.
    recipe.match(_met(_application(model, kwargs), params, *args))
  return y
