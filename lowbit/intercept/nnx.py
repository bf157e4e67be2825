"""Flax NNX: products are injected into layers, and nothing is patched.

NNX layers take their product (`dot_general`, `einsum_op`,
`conv_general_dilated`) and their `promote_dtype` as arguments. Here a clone of
a model gets ones that send every product to a handler, the same that Linen's
interceptor calls; layers without such an argument (`Embed`, `ConvTranspose`)
are met where they promote their weight. Whatever a handler keeps are variables
of the injected module, so that nnx.split, jit, scan and optimizers treat it as
they do the model's own.
"""

import contextlib
import contextvars
import dataclasses
import math
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
from flax import nnx

from lowbit import operators, quantize, solvers
from lowbit.intercept import linen, nnx_sites, rules, training

CODED = operators.Operator | quantize.QTensor | quantize.PackedQTensor
_STEP = contextvars.ContextVar('lowbit_step', default=None)


class Quantized(nnx.Param):
  """A weight that is an operator or a quantized tensor: `w[...]` is it."""

  def __getitem__(self, key):
    return self.get_value() if key is ... else super().__getitem__(key)


class Quantizer(nnx.Param):
  """Parameters of a learned or static quantizer; they train as params do."""


class Delayed(nnx.Variable):
  """Histories of delayed scales."""


class Recorded(nnx.Variable):
  """`solvers.Statistics` of a layer's input."""


@contextlib.contextmanager
def schedule(step: jax.Array) -> Iterator[None]:
  """The training step, int32 [], that schedules read; enter it inside jit."""
  token = _STEP.set(step)
  try:
    yield
  finally:
    _STEP.reset(token)


class Product(nnx.Module):
  """What is injected: sends a product to the handler that `how` makes.

  Attributes:
    site: Which weight.
    own: The product that the layer had.
    how: step -> handler; a frozen value.
    param_dtype: dtype of the layer's params.
    stream: Keys of stochastic rounding, or None.
    kept: Variables of the handler.
  """

  def __init__(self, site: nnx_sites.Site, own, how, param_dtype, stream=None):
    self.site, self.own, self.how = site, own, how
    self.param_dtype = param_dtype
    self.stream = nnx.data(stream)
    self.kept = nnx.data({})

  def __call__(self, lhs, rhs, *args, **kwargs):
    """The layer's product; an einsum's equation comes first."""
    text = ()
    if isinstance(lhs, str):
      text, lhs, rhs, args = (lhs,), rhs, args[0], args[1:]
    return self.run(
      lhs, rhs, lambda w, x: self.own(*text, x, w, *args, **kwargs), args
    )

  def run(self, x, weight, product, args=()):
    """The handler's result for one product."""
    site = self.site
    call = linen.Call(
      self,
      site.path,
      x,
      weight,
      site.found,
      {},
      lambda w, x, rest=None: product(w, x),
      self._inject(x, args) if site.found.matrix else None,
      lambda: site.shape,
    )
    return self.how(_STEP.get())(call)

  def _inject(self, x, args):
    dummy = jax.ShapeDtypeStruct(self.site.shape, x.dtype)
    return lambda dot_general: dot_general(x, dummy, *args)

  # What a handler asks of a Linen module.

  def has_rng(self, name: str) -> bool:
    """Whether there are keys."""
    return self.stream is not None

  def make_rng(self, name: str) -> jax.Array:
    """A fresh key."""
    return self.stream()

  def get_variable(self, kind: str, name: str, default=None):
    """What was kept under a collection's name."""
    found = self.kept.get(f'{kind}/{name}')
    return default if found is None else found.get_value()

  def put_variable(self, kind: str, name: str, value) -> None:
    """Keeps a value."""
    key = f'{kind}/{name}'
    if key in self.kept:
      self.kept[key].set_value(value)
    else:
      self.kept[key] = KINDS[kind](value)

  def is_mutable_collection(self, kind: str) -> bool:
    """Histories may always be updated."""
    return True

  def sow(self, kind: str, name: str, value, **_) -> None:
    """Keeps what a quantizer starts from."""
    self.put_variable(kind, name, value)


KINDS = {training.QUANTIZERS: Quantizer, training.DELAYED: Delayed}


class Promote(nnx.Module):
  """A layer's `promote_dtype` that lets an operator pass.

  Where the layer takes no product, the weight is handed to the handler here,
  and decoded.
  """

  def __init__(self, own, dtype, product: Product | None):
    self.own, self.dtype = own, dtype
    self.product = nnx.data(product)

  def __call__(self, args, /, **kwargs):
    """As the layer's own."""
    at = next((i for i, a in enumerate(args) if isinstance(a, CODED)), None)
    plain = list(args)
    if at is not None:  # It counts as an array of the params' dtype.
      plain[at] = jnp.zeros((), self.dtype)
    result = list(self.own(tuple(plain), **kwargs))
    if self.product is None:
      if at is not None:
        result[at] = args[at]
      return tuple(result)
    where = 0 if len(args) == 1 else 1
    x = args[0] if where else None
    weight = result[where] if at is None else args[at]
    dtype = result[where].dtype
    dense, x = self.product.run(x, weight, lambda w, x: (w, x))
    result[where] = dense.astype(dtype)
    if where:
      result[0] = x.astype(result[0].dtype)
    return tuple(result)


def inject(
  model: nnx.Module, how: Callable, key: jax.Array | None = None
) -> tuple[nnx.Module, dict[str, Product]]:
  """A clone of `model` whose products go to a handler.

  Args:
    model: Any NNX model; it stays as it is.
    how: step -> handler, a frozen value (static under jit).
    key: PRNG key, for handlers that round stochastically.

  Returns:
    The clone, and what was injected into it by the paths of weights.

  Raises:
    ValueError: If the model was injected already, or see `nnx_sites.sites`.
  """
  clone, products = nnx.clone(model), {}
  for i, (path, (layer, site)) in enumerate(nnx_sites.sites(clone).items()):
    if isinstance(layer.promote_dtype, Promote):
      raise ValueError(
        f'{path} is quantized or simulated already. Begin with the float model.'
      )
    own = getattr(layer, site.argument) if site.argument else None
    dtype = jnp.dtype(layer.param_dtype)
    stream = _stream(key, i, nnx_sites.stacked(layer, site))
    product = Product(site, own or jax.lax.dot_general, how, dtype, stream)
    if site.argument:
      setattr(layer, site.argument, nnx.data(product))
    promote = Promote(
      layer.promote_dtype, dtype, None if site.argument else product
    )
    layer.promote_dtype = nnx.data(promote)
    products[path] = product
  return clone, products


def _stream(key, index: int, stack):
  if key is None:
    return None
  key = jax.random.fold_in(key, index)
  key = jax.random.split(key, stack) if stack else key
  return nnx.RngStream(key, tag=training.STREAM)


@dataclasses.dataclass(frozen=True)
class Serve:
  """Handler of quantized weights."""

  def __call__(self, step):
    """`linen.serve`."""
    return linen.serve


@dataclasses.dataclass(frozen=True)
class Simulate:
  """Handler of training under a recipe."""

  recipe: rules.Recipe

  def __call__(self, step):
    """`training.simulate` at a step."""
    return training.simulate(self.recipe, step)


@dataclasses.dataclass(frozen=True)
class Initialize:
  """Handler that runs in float and keeps what learned quantizers start from."""

  recipe: rules.Recipe

  def __call__(self, step):
    """`training.initialize`."""
    return training.initialize(self.recipe)


@dataclasses.dataclass(frozen=True)
class Record:
  """Handler that keeps statistics of inputs, where `recorded` has made room."""

  def __call__(self, step):
    """Merges into what was seen before."""
    return record


RECORD = 'record'


def recorded(layer, site) -> Recorded | None:
  """Statistics of no inputs; None for a layer whose inputs are no matrix."""
  if site.found.input_axes is None or not site.argument or site.found.batched:
    return None
  size = math.prod(site.shape[a] for a in site.found.weight_axes)
  stack = nnx_sites.stacked(layer, site)
  zeros = lambda *shape: jnp.zeros((*stack, *shape), jnp.float32)
  return Recorded(
    solvers.Statistics(
      zeros(), zeros(size), zeros(size), zeros(size), zeros(size, size)
    )
  )


def record(call: linen.Call) -> jax.Array:
  """Runs the layer, and merges statistics of its input."""
  past = call.module.kept.get(RECORD)
  if past is not None:
    seen = solvers.observe(rows(call))
    past.set_value(solvers.merge(past.get_value(), seen))
  return linen.serve(call)


def rows(call: linen.Call) -> jax.Array:
  """The inputs of a product as [..., in], contraction axes flattened last."""
  site = call.module.site
  if site.argument != 'conv_general_dilated':
    return linen.rows(call)
  *window, channels, _ = site.shape
  if call.x.shape[-1] != channels:
    raise ValueError(
      f'Inputs of {call.path} cannot be recorded: a grouped convolution has no '
      'single input matrix. Give it a rule whose solver needs no statistics.'
    )
  size = math.prod(site.shape[:-1])
  # Each output of the identity is one input of the window.
  identity = jnp.eye(size, dtype=call.x.dtype)
  return call.own(identity.reshape(*window, channels, size), call.x)
