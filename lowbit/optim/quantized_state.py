"""Any optax optimizer with its state in few bits."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from lowbit import quantize
from lowbit.optim import adam, second_moment, storage
from lowbit.optim import moments as moments_lib

# Fields of optax's states that hold means or sums of squares.
SECOND = ('nu', 'nu_max', 'v', 'sum_of_squares', 'e_g', 'e_x', 'exp_avg_sq')


class QuantizedState(NamedTuple):
  """The state of the inner optimizer, its large leaves stored."""

  count: jax.Array  # int32 [], steps done.
  inner: optax.OptState


def quantize_state(
  inner: optax.GradientTransformation,
  moments: moments_lib.Moments | quantize.Spec | str = adam.EIGHT_BIT,
) -> optax.GradientTransformationExtraArgs:
  """Keeps the state of `inner` in few bits between steps.

  A float leaf with the shape of a parameter of at least `min_size` elements is
  stored: as `moments.second` in a field that optax uses for squares (nu, v,
  sum_of_squares, ...), as `moments.first` elsewhere. The rest stays as it is.

  Args:
    inner: Any transformation whose `init` depends on shapes and dtypes only.
    moments: What is stored how; or one spec, or its name, for all.

  Returns:
    A transformation with `inner`'s updates.

  Raises:
    ValueError: If a second moment would be stored in a format that reaches zero
      linearly, or a signed one in a format without negative values.

  >>> tx = lowbit.optim.quantize_state(optax.rmsprop(1e-3))
  """
  inner = optax.with_extra_args_support(inner)
  if isinstance(moments, quantize.Spec | str):
    flat = storage.Flat(moments)
    moments = _Both(flat, flat)

  def init_fn(params):
    state = inner.init(params)
    plan = _plan(moments, state, params)
    return QuantizedState(
      jnp.zeros([], jnp.int32), _map(_store(None), plan, state)
    )

  def update_fn(updates, state, params=None, **extra):
    example = updates if params is None else params
    template = jax.eval_shape(inner.init, example)
    plan = _plan(moments, template, example)
    old = _map(_load, plan, template, state.inner)
    updates, new = inner.update(updates, old, params, **extra)
    count = optax.safe_increment(state.count)
    key = moments.key(count)
    return updates, QuantizedState(count, _map(_store(key), plan, new))

  return optax.GradientTransformationExtraArgs(init_fn, update_fn)


class _Both(NamedTuple):
  """One storage for all; whether it may hold a second moment is seen later."""

  first: storage.Flat
  second: storage.Flat
  min_size: int = 4096
  keep: tuple[str, ...] = ()

  def key(self, count):
    """No key: `_plan` refuses what needs one."""
    del count


def _plan(moments, state, params) -> list[storage.Storage | None]:
  """The storage of each leaf of `state`, or None."""
  large = {
    tuple(p.shape)
    for p in jax.tree.leaves(params)
    if p.size >= moments.min_size and p.size
  }
  paths = jax.tree_util.tree_leaves_with_path(state)
  return [_choose(moments, path, leaf, large) for path, leaf in paths]


def _choose(moments, path, leaf, large):
  is_float = jnp.issubdtype(leaf.dtype, jnp.floating)
  if not is_float or tuple(leaf.shape) not in large:
    return None
  if moments_lib.is_kept(moments.keep, path):
    return None
  fields = [k.name for k in path if isinstance(k, jax.tree_util.GetAttrKey)]
  kind = moments.second if fields and fields[-1] in SECOND else moments.first
  if kind is None:
    return None
  if isinstance(moments, _Both):
    _check_one_spec(kind, fields)
  return kind


def _check_one_spec(kind, fields):
  field = fields[-1] if fields else 'state'
  if moments_lib.is_random(kind):
    raise ValueError(
      f'`moments` {kind.spec} rounds stochastically and has no seed. Give '
      'Moments(first, second, seed=0).'
    )
  if field in SECOND:
    second_moment.check(kind)
  elif kind.spec.format.values()[0] >= 0:
    raise ValueError(
      f'`{field}` may be negative, and {kind.spec.format.name} has no negative '
      'values. Give Moments(first, second), or a signed format.'
    )


def _map(function, plan, tree, *rest):
  leaves, treedef = jax.tree.flatten(tree)
  others = [treedef.flatten_up_to(r) for r in rest]
  results = [
    function(i, kind, *args)
    for i, (kind, *args) in enumerate(zip(plan, leaves, *others))
  ]
  return treedef.unflatten(results)


def _store(key):
  def store(i, kind, x):
    if kind is None:
      return x
    at = None
    if moments_lib.is_random(kind):  # Zeros, at first, need no noise.
      at = jax.random.key(0) if key is None else jax.random.fold_in(key, i)
    if key is None:  # Constants, which XLA would encode to compile `init`.
      x = jax.lax.optimization_barrier(x)
    return kind.encode(x.astype(jnp.float32), at)

  return store


def _load(i, kind, like, stored):
  del i
  if kind is None:
    return stored
  if moments_lib.is_float(stored):
    raise ValueError(
      f'The optimizer state holds a float array of shape {stored.shape} where '
      'codes are expected. Restore it with the `moments` that made it.'
    )
  return kind.decode(stored, like.shape).astype(like.dtype)
