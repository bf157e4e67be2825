"""Which state leaves are stored in few bits, and the trees of them."""

import dataclasses
import re
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from lowbit import quantize
from lowbit.optim import second_moment, streaming, structured
from lowbit.optim import storage as storage_lib


@dataclasses.dataclass(frozen=True)
class Moments:
  """How an optimizer keeps its moments: a static value.

  Attributes:
    first: Storage, spec or spec name of the first moment.
    second: The same of the second moment, or None. Refused where it would
      diverge, see `second_moment.check`.
    min_size: Smaller parameters keep float32 state.
    keep: Regular expressions; parameters whose path (keys joined by '/') holds
      a match keep float32 state, as embeddings should.
    seed: Of the noise, needed by stochastic rounding and by nothing else.
    allow_zero: Lets any format hold the second moment, to see it diverge.
  """

  first: storage_lib.Storage | quantize.Spec | str
  second: storage_lib.Storage | quantize.Spec | str | None = None
  min_size: int = 4096
  keep: tuple[str, ...] = ()
  seed: int | None = None
  allow_zero: bool = False

  def __post_init__(self):
    for field in ('first', 'second'):
      value = getattr(self, field)
      if isinstance(value, quantize.Spec | str):
        object.__setattr__(self, field, storage_lib.Flat(value))
    self._check_signs()
    if self.second is not None and not self.allow_zero:
      second_moment.check(self.second)
    if isinstance(self.keep, str):
      raise TypeError(
        f'`keep` must be a tuple of patterns, got {self.keep!r}. Write '
        f'({self.keep!r},).'
      )
    self._check_seed()

  def _check_signs(self):
    spec = getattr(self.first, 'spec', self.first)
    fmt = getattr(spec, 'format', None)
    if fmt is None or fmt.bits > 16 or getattr(spec, 'zero_point', False):
      return
    if fmt.values()[0] >= 0:
      raise ValueError(
        f'`first` may be negative, and {fmt.name} has no negative values. Use '
        'a signed format, such as dynamic8@g256.'
      )

  def _check_seed(self):
    noisy = [s for s in (self.first, self.second) if is_random(s)]
    if noisy and self.seed is None:
      raise ValueError(
        f'`seed` is needed by stochastic rounding in {noisy[0].spec}. Give '
        'one, such as seed=0, or round to nearest.'
      )

  def key(self, count: jax.Array) -> jax.Array | None:
    """The PRNG key of step `count`, or None without stochastic rounding."""
    if self.seed is None:
      return None
    return jax.random.fold_in(jax.random.key(self.seed), count)


def init(moments: Moments, storage: storage_lib.Storage, params):
  """Zeros for each parameter, stored if it is large and not to be kept."""

  def leaf(path, p):
    quantize.check_float(p, f'params{jax.tree_util.keystr(path)}')
    zeros = storage_lib.zeros(p.shape)
    if p.size < moments.min_size or is_kept(moments.keep, path):
      return zeros
    # Zeros round to zero, whatever the key.
    key = jax.random.key(0) if is_random(storage) else None
    return storage.encode(zeros, key)

  return jax.tree_util.tree_map_with_path(leaf, params)


def is_random(storage) -> bool:
  """Whether a storage needs a key."""
  spec = getattr(storage, 'spec', None)
  return spec is not None and spec.rounding == 'stochastic'


def is_kept(patterns, path) -> bool:
  """Whether a path holds a match of one of the patterns."""
  names = [str(getattr(k, 'key', getattr(k, 'name', k))) for k in path]
  return any(re.search(p, '/'.join(names)) for p in patterns)


def advance(new, direction, storages, updates, stored, key=None):
  """One step of an optimizer: reads, moves and stores all moments.

  Args:
    new: (g, *moments) -> the new moments, on float32 arrays, elementwise.
    direction: (g, moments, new moments) -> the direction, likewise.
    storages: The storage of each moment.
    updates: Tree of gradients.
    stored: For each moment a tree like `updates`, stored.
    key: PRNG key of this step, for stochastic rounding.

  Returns:
    `(directions, stored moments)`: a tree like `updates`, in its dtypes, and a
    list of trees.
  """
  leaves, treedef = jax.tree.flatten(updates)
  olds = zip(*(treedef.flatten_up_to(tree) for tree in stored))
  results = []
  for i, (g, old) in enumerate(zip(leaves, olds)):
    at = None if key is None else jax.random.fold_in(key, i)
    step = _Step(new, direction, tuple(storages), at)
    results.append(streaming.run(step, storages, g, old))
  columns = zip(*results) if results else [()] * (1 + len(storages))
  directions, *news = [treedef.unflatten(c) for c in columns]
  return directions, news


@dataclasses.dataclass(frozen=True, eq=False)
class _Step:
  """The step of one parameter, or of a slice of it."""

  new: Callable
  direction: Callable
  storages: tuple[storage_lib.Storage, ...]
  key: jax.Array | None

  def __call__(self, g, *stored):
    g32 = g.astype(jnp.float32)
    old = [_read(s, x, g.shape) for s, x in zip(self.storages, stored)]
    new = self.new(g32, *old)
    seen = [_seen(s, x, o) for s, x, o in zip(self.storages, new, stored)]
    direction = self.direction(g32, old, seen)
    kept = [
      _write(s, x, o, self.key, i)
      for i, (s, x, o) in enumerate(zip(self.storages, new, stored))
    ]
    return direction.astype(g.dtype), *kept


def correction(decay, count: jax.Array) -> jax.Array:
  """1 - decay^count, float32 []: what the average of `count` steps lacks."""
  return 1 - jnp.asarray(decay, jnp.float32) ** count.astype(jnp.float32)


def is_float(stored) -> bool:
  """Whether a moment lies in memory as it is."""
  return isinstance(stored, jax.Array | np.ndarray)


def _read(storage, stored, shape):
  if not is_float(stored):
    return storage.decode(stored, shape)
  if stored.shape != shape:
    raise ValueError(
      f'The optimizer state holds an array of shape {stored.shape} for a '
      f'parameter of shape {shape}. Restore it with the model that made it.'
    )
  return stored


def _seen(storage, x, stored):
  """What the update sees: the new moment, or its factors if it has some."""
  if not isinstance(stored, structured.FactoredTensor):
    return x
  return storage.decode(storage.encode(x), x.shape)


def _write(storage, x, old, key, index):
  if is_float(old):
    return x
  if not is_random(storage):
    return storage.encode(x, None)
  return storage.encode(x, jax.random.fold_in(key, index))
