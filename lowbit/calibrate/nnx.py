"""Recipes on NNX models: calibrate, quantize, simulate.

    served = lb.nnx.quantize(model, lb.recipes.nearest('int4@g64'))
    trained = lb.nnx.simulate(model, lb.recipes.qat('int4@channel'))

Both return a clone that is called, split, merged, jitted and scanned as the
model is; the model itself stays as it was.
"""

from collections.abc import Callable, Iterable

import jax
import jax.numpy as jnp
from flax import nnx

from lowbit import intercept, solvers
from lowbit import quantize as quantize_lib
from lowbit.calibrate import nnx_prepare, one_weight
from lowbit.intercept import nnx as nnx_lib
from lowbit.intercept import nnx_sites

schedule = nnx_lib.schedule


def run_model(model: nnx.Module, batch):
  """model(batch), or model(*batch) for a tuple."""
  return model(*batch) if isinstance(batch, tuple) else model(batch)


def matmuls(
  model: nnx.Module, batch, run: Callable = run_model
) -> tuple[intercept.Matmul, ...]:
  """Every product with a param in a float model, met or not.

  Args:
    model: Of float params.
    batch: What it is called with.
    run: (model, batch) -> output.
  """
  definition, params, rest = nnx.split(model, nnx.Param, ...)

  def apply(values, batch):
    state = jax.tree.map(lambda x: x, params)
    nnx.replace_by_pure_dict(state, values)
    return run(nnx.merge(definition, state, rest), batch)

  return intercept.matmuls(apply, nnx.to_pure_dict(params), batch)


def calibrate(
  model: nnx.Module, batches: Iterable, run: Callable = run_model
) -> dict[str, solvers.Statistics]:
  """Statistics of the input of every product that can be met.

  Args:
    model: A float model.
    batches: Arrays, or tuples of the model's arguments; at least one.
    run: (model, batch) -> output.

  Returns:
    Weight path -> `solvers.Statistics`, with leading axes for stacked layers.

  Raises:
    ValueError: If there is no batch, or a weight is multiplied outside of the
      layers that can be met.
  """
  batches = _batches(batches)
  _check_met(model, batches[0], run)
  clone, products = nnx_lib.inject(model, nnx_lib.Record())
  for path, (layer, site) in nnx_sites.sites(clone).items():
    start = nnx_lib.recorded(layer, site)
    if start is not None:
      products[path].kept[nnx_lib.RECORD] = start
  step = nnx.jit(run)
  for batch in batches:
    step(clone, batch)
  kept = {path: product.kept for path, product in products.items()}
  return {
    path: variables[nnx_lib.RECORD].get_value()
    for path, variables in kept.items()
    if nnx_lib.RECORD in variables
  }


def _batches(batches) -> list:
  batches = list(batches)
  if not batches:
    raise ValueError(
      '`batches` is empty. Give at least one batch of model inputs.'
    )
  return batches


def _check_met(model, batch, run) -> None:
  missed = {m.path for m in matmuls(model, batch, run)}
  missed -= set(nnx_sites.sites(model))
  if missed:
    raise ValueError(
      f'The model multiplies with {", ".join(sorted(missed))} outside of the '
      'NNX layers that lowbit meets (Linear, LinearGeneral, Einsum, Conv, '
      'ConvTranspose, Embed). Use one of these, or lowbit.dot_general in your '
      'own layer.'
    )


def quantize(
  model: nnx.Module,
  recipe: intercept.Recipe,
  batches: Iterable = (),
  run: Callable = run_model,
) -> nnx.Module:
  """Quantizes a model's weights by a recipe.

  Args:
    model: A float model, unaware of quantization.
    recipe: What to do with which weight; paths are those of `nnx.iter_modules`
      with the weight's name, such as 'layers/0/attention/query/kernel'.
    batches: For solvers that need statistics. Where there is one, weights that
      are multiplied outside of the layers that can be met are an error.
    run: (model, batch) -> output.

  Returns:
    A clone whose weights are `Quantized` variables with operators in them.

  Raises:
    ValueError: If weights are not finite, a rule matches nothing, a weight has
      no rule, statistics are needed and there is no batch, or the recipe
      rewrites params first whose names the model has not, see `nnx_prepare`.
  """
  batches = list(batches)
  chosen = _matched(model, recipe)
  needed = any(rule.needs_statistics for rule in chosen.values())
  if needed and not batches:
    raise ValueError(
      f'Recipe {recipe.name!r} needs statistics of layer inputs: give at least '
      'one batch of model inputs as `batches`.'
    )
  if batches:
    _check_met(model, batches[0], run)
  statistics = lambda model: calibrate(model, batches, run)
  model = nnx_prepare.rewritten(model, recipe, statistics)
  if recipe.sequential and needed:
    leaves = _sequential(model, chosen, batches, run)
  else:
    stats = statistics(model) if needed else {}
    leaves = {
      path: _leaf(layer, site, chosen[path], stats.get(path))
      for path, (layer, site) in nnx_sites.sites(model).items()
      if chosen[path].changes
    }
  clone, _ = nnx_lib.inject(model, nnx_lib.Serve())
  for path, (layer, site) in nnx_sites.sites(clone).items():
    if path in leaves:
      setattr(layer, site.weight, nnx_lib.Quantized(leaves[path]))
  return clone


def _matched(model, recipe) -> dict[str, intercept.Rule]:
  """The rule of every weight."""
  found = nnx_sites.sites(model)
  for path, (layer, site) in found.items():
    value = getattr(layer, site.weight).get_value()
    if isinstance(value, nnx_lib.CODED):
      raise ValueError(
        f'{path} is quantized already. Begin with the float model.'
      )
    if not bool(jnp.all(jnp.isfinite(value))):
      raise ValueError(
        f'{path} holds NaN or Inf. A quantizer would spread it over its block; '
        'mend the weights first.'
      )
  return recipe.match(found)


def _leaf(layer, site, rule, stats):
  weight = getattr(layer, site.weight).get_value()
  return one_weight.quantize_weight(weight, rule, stats, site.found.weight_axes)


def _sequential(model, chosen, batches, run) -> dict:
  """Quantizes each layer when the forward pass first meets it, eagerly."""
  leaves = {}
  handler = one_weight.one_after_another(
    chosen, leaves, nnx_lib.rows, 'Use a recipe with sequential=False.'
  )
  clone, _ = nnx_lib.inject(model, lambda step: handler)
  whole = jax.tree.map(lambda *xs: jnp.concatenate(xs), *batches)
  run(clone, whole)
  return leaves


def simulate(
  model: nnx.Module,
  recipe: intercept.Recipe,
  *inputs,
  key: jax.Array | None = None,
  run: Callable = run_model,
) -> nnx.Module:
  """A clone that computes as the recipe says, forward and backward.

  Args:
    model: A float model.
    recipe: Its rules may quantize weights, inputs and both backward products.
      Where it has a schedule, call the clone inside `schedule(step)`.
    *inputs: Representative ones of the model, for learned and static
      quantizers to start from.
    key: PRNG key, for stochastic rounding.
    run: (model, batch) -> output, for `inputs`.

  Returns:
    The clone. Learned quantizers are `nnx.Param`s of it, and train beside its
    own under `nnx.Optimizer(clone, tx, wrt=nnx.Param)`.

  Raises:
    ValueError: If a rule matches nothing, a weight has no rule, a quantizer
      needs `inputs`, a rule does not go with a layer, or the recipe rewrites
      params first.
  """
  if recipe.prepare:
    raise ValueError(
      f'Recipe {recipe.name!r} rewrites params first '
      f'({", ".join(type(p).__name__ for p in recipe.prepare)}), for which '
      'training has no statistics. Use lb.nnx.quantize, or a recipe without '
      '`prepare`.'
    )
  chosen = _matched(model, recipe)
  found = nnx_sites.sites(model)
  for path, rule in chosen.items():
    _check_backward(path, rule, found[path][1])
  clone, products = nnx_lib.inject(model, nnx_lib.Simulate(recipe), key)
  _start_histories(products, chosen, found)
  learns = [
    path
    for path, rule in chosen.items()
    if any(hasattr(how, 'init') for how in (rule.weight, rule.activation))
  ]
  if not learns:
    return clone
  if not inputs:
    raise ValueError(
      f'Recipe {recipe.name!r} has quantizers that start from data '
      f'({", ".join(learns)}): pass representative inputs of the model.'
    )
  float_clone, started = nnx_lib.inject(model, nnx_lib.Initialize(recipe))
  nnx.jit(run)(float_clone, inputs)
  for path in learns:
    products[path].kept.update(started[path].kept)
  return clone


def _check_backward(path, rule, site) -> None:
  if rule.backward and not site.argument and site.found.input_axes:
    raise ValueError(
      f'{path} belongs to a layer that takes no product (ConvTranspose), so '
      'that its gradients cannot be quantized. Give it a rule without '
      '`backward`.'
    )


def _start_histories(products, chosen, found) -> None:
  """Delayed scales begin before the first step: loops carry them."""
  for path, rule in chosen.items():
    layer, site = found[path]
    stack = nnx_sites.stacked(layer, site)
    for kind in ('weight', 'activation'):
      how = getattr(rule, kind)
      if isinstance(how, quantize_lib.Delayed):
        start = jax.tree.map(
          lambda x, stack=stack: jnp.broadcast_to(x, (*stack, *x.shape)),
          how.start(),
        )
        products[path].put_variable(
          intercept.DELAYED, f'{site.weight}_{kind}', start
        )
