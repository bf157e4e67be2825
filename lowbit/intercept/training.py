"""The simulate handler: quantized forward and backward passes for training.

Whatever a quantizer holds is a Flax collection beside the params, in the tree
of their paths, so that nn.scan, nn.remat and sharding treat it as they do
params.
"""

from collections.abc import Callable

import jax

from lowbit import quantize
from lowbit.intercept import backward, rules

STREAM = 'lowbit'  # The rng stream of stochastic rounding.
QUANTIZERS = 'lowbit_quantizers'  # Parameters of learned and static ones.
DELAYED = 'lowbit_delayed'  # Histories of delayed scales.


def simulate(recipe: rules.Recipe, step: jax.Array | None = None) -> Callable:
  """Handler for training under a recipe.

  Args:
    recipe: Its rules may quantize weights, inputs and both backward products.
    step: Training step, int32 [], for `Progressive` and `Ramp`.

  Returns:
    Call -> the layer's output.
  """
  if recipe.ramp is not None and step is None:
    raise ValueError(f'Recipe {recipe.name!r} has a ramp: pass `step`.')

  def handler(call):
    rule = recipe.rule(call.path)
    if rule is None:
      recipe.match([call.path])  # Raises, and says what to do.
    if rule.rotate:
      raise ValueError(
        f'Rule {rule.pattern!r} rotates, which changes the params: use '
        'quantize_model and serve, not simulate.'
      )

    def apply(value, how, axis, kind):
      if how is None or axis is None:
        return value
      y = _quantized(call, value, how, axis, kind, rule, step)
      if recipe.ramp is None:
        return y
      strength = recipe.ramp.strength(step).astype(value.dtype)
      return value + strength * (y - value)

    found = call.found
    w = apply(call.weight, rule.weight, found.weight_axes, 'weight')
    x = apply(call.x, rule.activation, found.input_axes, 'activation')
    if rule.backward is None or found.input_axes is None:
      return call.own(w, x)
    key = _key(call) if rule.backward.stochastic else None
    return backward.product(
      call.own,
      call.rest,
      call.weight,
      call.x,
      w,
      x,
      rule.backward,
      _axes(call),
      key,
    )

  return handler


def _quantized(call, value, how, axis, kind, rule, step):
  """`value` by a spec, a schedule, a history or a learned quantizer."""
  if isinstance(how, quantize.Spec):
    key = _key(call) if _is_random(how, rule) else None
    return quantize.fake_quantize(value, how, axis, key, rule.estimator)
  if isinstance(how, quantize.Progressive):
    return _staged(call, value, how, axis, rule, step)
  if isinstance(how, quantize.Delayed):
    return _delayed(call, value, how, kind)
  params = call.module.get_variable(QUANTIZERS, call.found.weight, {})
  if kind not in params:
    raise ValueError(
      f'There are no parameters for the {kind} of {call.path}, which '
      f'{type(how).__name__} needs. Make them by lowbit.calibrate.'
      'init_quantizers(model, params, recipe, batch), and pass them to '
      'lb.apply as `quantizers`.'
    )
  if getattr(how, 'stochastic', False):
    return how(value, params[kind], axis, _key(call))
  return how(value, params[kind], axis)


def _is_random(spec, rule) -> bool:
  forward = quantize.forward_spec(spec, rule.estimator)
  return forward.rounding == 'stochastic'


def _staged(call, value, how, axis, rule, step):
  if step is None:
    raise ValueError(f'{call.path} has progressive formats: pass `step`.')
  stochastic = [s is not None and _is_random(s, rule) for s in how.specs]
  key = _key(call) if any(stochastic) else None

  def branch(spec, is_stochastic):
    if spec is None:
      return lambda value: value
    fresh = key if is_stochastic else None
    return lambda value: quantize.fake_quantize(
      value, spec, axis, fresh, rule.estimator
    )

  branches = [branch(*pair) for pair in zip(how.specs, stochastic)]
  return jax.lax.switch(how.stage(step), branches, value)


def initialize(recipe: rules.Recipe) -> Callable:
  """Handler that runs in float and sows what learned quantizers start from."""

  def handler(call):
    rule, found = recipe.rule(call.path), call.found
    operands = {
      'weight': (call.weight, rule.weight, found.weight_axes),
      'activation': (call.x, rule.activation, found.input_axes),
    }
    start = {
      kind: how.init(value, axis)
      for kind, (value, how, axis) in operands.items()
      if hasattr(how, 'init') and axis is not None
    }
    if start:
      call.module.sow(
        QUANTIZERS,
        found.weight,
        start,
        reduce_fn=lambda _, new: new,
        init_fn=lambda: None,
      )
    return call.own(call.weight, call.x)

  return handler


def _delayed(call, value, how, kind):
  name = f'{call.found.weight}_{kind}'
  past = call.module.get_variable(DELAYED, name, how.start())
  key = _key(call) if how.spec.rounding == 'stochastic' else None
  y, history = how(value, past, key)
  if call.module.is_mutable_collection(DELAYED):
    call.module.put_variable(DELAYED, name, history)
  return y


def _key(call) -> jax.Array:
  """A fresh key: each operand of each layer gets its own."""
  if not call.module.has_rng(STREAM):
    raise ValueError(
      f'{call.path} rounds stochastically, and there is no key. Pass '
      f"rngs={{'{STREAM}': jax.random.key(seed)}} to lb.apply or model.apply."
    )
  return call.module.make_rng(STREAM)


def _axes(call) -> backward.Axes:
  found, x = call.found, call.x
  if found.batched:
    raise ValueError(
      f'{call.path} has batch axes in its weight, which quantized gradients do '
      'not support. Give it a rule without `backward`.'
    )
  y = jax.eval_shape(call.own, call.weight, x)
  others = lambda ndim, taken: tuple(
    a for a in range(-ndim, 0) if a not in taken
  )
  return backward.Axes(
    found.weight_outputs,
    found.outputs,
    others(y.ndim, found.outputs),
    others(x.ndim, found.input_axes),
  )
