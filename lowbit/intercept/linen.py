"""Interceptors for Flax Linen: record, simulate, serve.

An interceptor meets each layer that owns a product (`layers.KNOWN`), by Linen's
public `nn.intercept_methods`. What it changes is the layer's input and weight;
the arithmetic is the layer's own, run on an unbound copy, so that bias, dtype
promotion, `precision` and `preferred_element_type` stay the caller's.
"""

import contextlib
import dataclasses
import functools
import math
import threading
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
from flax import linen as nn

from lowbit import operators, quantize, solvers
from lowbit.intercept import layers, rules, training

STATISTICS = 'lowbit_statistics'  # The collection that `record` sows.
# jit caches a trace by its function; this makes the active handler a part of
# the key, so that a float trace is never reused for a quantized call.
_ACTIVE = jax.make_user_context(default_value=None)
_STATE = threading.local()


@dataclasses.dataclass(frozen=True)
class Call:
  """One product of one layer, met by an interceptor."""

  module: nn.Module
  path: str  # Of the weight.
  x: jax.Array
  weight: object  # Array, QTensor or operator.
  found: layers.Contraction
  rest: dict  # The layer's other params.
  own: Callable  # (weight, x[, rest]) -> y, by the layer's own code.
  inject: Callable | None  # dot_general -> y, by the layer's own code.
  weight_shape: Callable[[], tuple[int, ...]]


Handler = Callable[[Call], jax.Array]


def _call(module: nn.Module, method: str, x, found) -> Call:
  params = module.variables['params']
  copy = module.clone(parent=None, name=None)
  rest = {k: v for k, v in params.items() if k != found.weight}

  def own(weight, x, rest=rest):
    variables = {'params': {**rest, found.weight: weight}}
    with _busy():  # Gradients may trace it after the handler is done.
      return copy.apply(variables, x, method=method)

  def weight_shape():
    key = jax.ShapeDtypeStruct((), jax.random.key(0).dtype)
    init = functools.partial(copy.init, method=method)
    shapes = jax.eval_shape(init, key, x)['params']
    return shapes[found.weight].shape

  def inject(dot_general):
    injected = copy.clone(dot_general=dot_general, dot_general_cls=None)
    # The matrix is the operator's: this one is never read.
    dummy = jnp.zeros(weight_shape(), module.param_dtype)
    return injected.apply({'params': {**params, found.weight: dummy}}, x)

  return Call(
    module,
    layers.weight_path(module, found.weight),
    x,
    params[found.weight],
    found,
    rest,
    own,
    inject if found.matrix else None,
    weight_shape,
  )


def _interceptor(handler: Handler):
  def run(next_fun, args, kwargs, context):
    module = context.module
    x = args[0] if args else next(iter(kwargs.values()), None)
    found = None
    if not getattr(_STATE, 'busy', False) and not module.is_initializing():
      found = layers.contraction(module, context.method_name, x)
    if found is None:
      return next_fun(*args, **kwargs)
    with _busy():
      return handler(_call(module, context.method_name, x, found))

  return run


@contextlib.contextmanager
def _busy() -> Iterator[None]:
  """Layers that run inside a handler are not met again."""
  before = getattr(_STATE, 'busy', False)
  _STATE.busy = True
  try:
    yield
  finally:
    _STATE.busy = before


@contextlib.contextmanager
def handling(handler: Handler, key=None) -> Iterator[None]:
  """Sends every product of every Linen layer in this context to `handler`.

  Args:
    handler: Call -> the layer's output.
    key: Hashable; jitted functions are traced anew for another key.
  """
  before = getattr(_STATE, 'handler', None)
  _STATE.handler = handler
  try:
    with nn.intercept_methods(_interceptor(handler)), _ACTIVE(key or handler):
      yield
  finally:
    _STATE.handler = before


def matmul(
  module: nn.Module, x: jax.Array, name: str, init: Callable, features: int
) -> jax.Array:
  """x @ w for models that declare their weights by hand.

  In place of `w = self.param(name, init, (x.shape[-1], features)); x @ w`, call
  `linen.matmul(self, x, name, init, features)`: the product is then met by the
  interceptors, and a quantized leaf is understood.

  Args:
    module: The bound module, `self`, in a compact method or in setup.
    x: Float array [..., in].
    name: Of the param.
    init: Initializer (key, shape, dtype) -> array.
    features: Number of outputs.

  Returns:
    [..., features].
  """
  shape = (x.shape[-1], features)
  handler = getattr(_STATE, 'handler', None)
  if handler is None or module.is_initializing():
    leaf = module.get_variable('params', name)
    coded = quantize.QTensor | quantize.PackedQTensor
    if isinstance(leaf, operators.Operator | coded):
      return operators.matmul(x, leaf)
    return jnp.matmul(x, module.param(name, init, shape, jnp.float32))
  found = layers.Contraction(name, (-1,), (-2,), True)
  own = lambda w, x, rest=None: jnp.matmul(x, w)
  inject = lambda dot: dot(
    x, jnp.zeros(shape, x.dtype), (((x.ndim - 1,), (0,)), ((), ()))
  )
  leaf = module.get_variable('params', name)
  path = layers.weight_path(module, name)
  return handler(
    Call(module, path, x, leaf, found, {}, own, inject, lambda: shape)
  )


def rows(call: Call) -> jax.Array:
  """The inputs of a product as [..., in], contraction axes flattened last."""
  x, axes = call.x, call.found.input_axes
  if isinstance(call.module, nn.Conv | nn.ConvTranspose):
    return _patches(call)
  x = jnp.moveaxis(x, axes, range(-len(axes), 0))
  return x.reshape(*x.shape[: x.ndim - len(axes)], -1)


def _patches(call: Call) -> jax.Array:
  """Inputs of a convolution, in the order of its kernel [*window, in, out]."""
  module = call.module
  shape = call.weight_shape()
  window, channels = shape[:-2], call.x.shape[-1]
  strides = module.strides or 1
  if isinstance(module, nn.ConvTranspose) or shape[-2] != channels:
    raise ValueError(
      f'Inputs of {call.path} cannot be recorded: a grouped or transposed '
      'convolution has no single input matrix. Give it a rule whose solver '
      'needs no statistics.'
    )
  n = len(window)
  spread = lambda v: (v,) * n if isinstance(v, int) else tuple(v)
  patches = jax.lax.conv_general_dilated_patches(
    call.x.reshape(-1, *call.x.shape[-n - 1 :]),
    window,
    spread(strides),
    module.padding,
    rhs_dilation=spread(module.kernel_dilation or 1),
    dimension_numbers=(
      'N' + 'DHW'[-n:] + 'C',
      'DHW'[-n:] + 'IO',
      'N' + 'DHW'[-n:] + 'C',
    ),
  )
  # JAX orders features [channel, *window]; a kernel is [*window, channel].
  split = patches.reshape(*patches.shape[:-1], channels, math.prod(window))
  return jnp.swapaxes(split, -1, -2).reshape(patches.shape)


def record(call: Call) -> jax.Array:
  """Runs the layer, and sows statistics of its input."""
  if call.found.input_axes is not None:
    call.module.sow(
      STATISTICS,
      call.found.weight,
      solvers.observe(rows(call)),
      reduce_fn=lambda a, b: b if a is None else solvers.merge(a, b),
      init_fn=lambda: None,
    )
  return serve(call)


def serve(call: Call) -> jax.Array:
  """Runs a layer whose weight may be a QTensor or an operator."""
  leaf, x = call.weight, call.x
  coded = quantize.QTensor | quantize.PackedQTensor
  if not isinstance(leaf, operators.Operator | coded):
    return call.own(leaf, x)
  op = operators.Coded(leaf) if isinstance(leaf, coded) else leaf
  # A QTensor of more than two axes is no matrix: its layer decodes it whole.
  if call.inject and math.prod(op.shape) == op.size:
    return call.inject(functools.partial(_dot_general, op))
  if isinstance(op, operators.QuantizeInput):
    if call.found.input_axes is not None:
      x = quantize.fake_quantize(x, op.spec, call.found.input_axes)
    op = op.op
  dense = op.dense().reshape(call.weight_shape())
  return call.own(dense.astype(call.module.param_dtype), x)


def _dot_general(
  op,
  lhs,
  rhs,
  dimension_numbers,
  precision=None,
  preferred_element_type=None,
  **_,
):
  """`jax.lax.dot_general` with an operator in place of `rhs`."""
  (axes, weight_axes), batch = dimension_numbers
  if batch != ((), ()) and any(batch):
    raise ValueError('A served operator has no batch axes.')
  lhs_rows = jnp.moveaxis(lhs, axes, range(-len(axes), 0))
  lead = lhs_rows.shape[: lhs.ndim - len(axes)]
  free = [n for i, n in enumerate(rhs.shape) if i not in weight_axes]
  y = op.apply(lhs_rows.reshape(*lead, -1), precision)
  y = y.reshape(*lead, *free)
  return y.astype(preferred_element_type or lhs.dtype)


def _noting(handler: Handler, recipe: rules.Recipe, met: set[str]) -> Handler:
  def note(call):
    met.add(call.path)
    if recipe.rule(call.path) is None:
      return call.own(call.weight, call.x)
    return handler(call)

  return note


@contextlib.contextmanager
def intercept(
  recipe: rules.Recipe | None,
  mode: str = 'simulate',
  step: jax.Array | None = None,
  met: set[str] | None = None,
):
  """Applies a recipe to every Linen model that runs inside this context.

  Enter it inside of the jitted function where a `step` is given.

  Args:
    recipe: For mode 'simulate'; None otherwise.
    mode: 'simulate' (fake quantization, differentiable), 'serve' (params hold
      operators or QTensors), or 'record' (statistics are sown in the
      collection `STATISTICS`, which must be mutable).
    step: For 'simulate': training step, int32 [], that schedules read.
    met: For 'simulate': takes the paths of the products that were traced. One
      without a rule is then left in float, for the caller to judge.

  Raises:
    ValueError: If the mode is unknown or the recipe does not go with it.
  """
  if mode not in ('simulate', 'serve', 'record'):
    raise ValueError(
      f"`mode` must be 'simulate', 'serve' or 'record', got {mode!r}."
    )
  if (recipe is None) != (mode != 'simulate'):
    raise ValueError(
      f'`recipe` goes with mode simulate, and only with it; got {mode=}, '
      f'recipe={recipe if recipe is None else recipe.name!r}.'
    )
  if mode != 'simulate':
    handler = {'serve': serve, 'record': record}[mode]
  else:
    handler = training.simulate(recipe, step)
    handler = handler if met is None else _noting(handler, recipe, met)
  # A step that a trace has read must not outlive it.
  once = None if step is None else object()
  with handling(handler, key=(mode, recipe, once)):
    yield
