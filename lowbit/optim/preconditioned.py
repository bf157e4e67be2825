"""Shampoo with 32-bit preconditioners, and with 4-bit eigenvectors.

Gupta et al., Shampoo, 2018 (arXiv:1802.09568); Wang et al., 4-bit Shampoo for
Memory-Efficient Network Training, 2024 (arXiv:2405.18144).
"""

import dataclasses
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from lowbit.optim import factors


class ShampooState(NamedTuple):
  """Stacks of factors for each matrix; () for vectors."""

  count: jax.Array  # int32 [], steps done.
  left: optax.Updates
  right: optax.Updates


def scale_by_shampoo(
  factor: factors.Factor = factors.EXACT,
  statistics_every: int = 100,
  roots_every: int = 500,
  largest: int = 1200,
  min_size: int = 4096,
) -> optax.GradientTransformation:
  """G -> L^(-1/4) G R^(-1/4), grafted to the norm of G.

  Tensors are folded to [first axis, the others]; a side longer than `largest`
  is cut in equal blocks with factors of their own, zeros at the end. Vectors
  and scalars pass. Statistics come in at steps 1, 1 + statistics_every, ...,
  roots likewise.

  Args:
    factor: How each preconditioner is kept. Static.
    statistics_every: Steps between statistics, T1.
    roots_every: Steps between roots, T2.
    largest: Largest order of a preconditioner. Static.
    min_size: Preconditioners of fewer elements are `Exact`. Static.

  Returns:
    A transformation; chain it with SGD or AdamW.
  """
  pick = lambda n: (
    factor if n * n >= min_size else factors.Exact(factor.decay, factor.ridge)
  )

  def init_fn(params):
    def side(p, index):
      if p.ndim < 2:
        return ()
      cut = _cut(p.shape, largest)
      one = pick(cut.sizes[index]).init(cut.sizes[index])
      stack = lambda a: jnp.broadcast_to(a, (cut.count, *a.shape))
      return jax.tree.map(stack, one)

    left, right = (
      jax.tree.map(lambda p, i=i: side(p, i), params) for i in range(2)
    )
    return ShampooState(jnp.zeros([], jnp.int32), left, right)

  def update_fn(updates, state, params=None):
    del params
    due = (
      state.count % statistics_every == 0,
      state.count % roots_every == 0,
    )

    def leaf(g, left, right):
      if g.ndim < 2:
        return g, left, right
      cut = _cut(g.shape, largest)
      blocks = cut.split(g.astype(jnp.float32))
      across = jax.vmap(lambda b: b @ b.T)
      left = _advance(pick(cut.sizes[0]), left, across, blocks, due)
      turned = blocks.swapaxes(1, 2)
      right = _advance(pick(cut.sizes[1]), right, across, turned, due)
      roots = [
        jax.vmap(pick(n).root)(s) for n, s in zip(cut.sizes, (left, right))
      ]
      new = cut.merge(roots[0] @ blocks @ roots[1])
      norm = jnp.linalg.norm(new)
      graft = jnp.linalg.norm(g.astype(jnp.float32)) / jnp.where(
        norm == 0, 1.0, norm
      )
      return (new * graft).astype(g.dtype), left, right

    leaves, treedef = jax.tree.flatten(updates)
    sides = [treedef.flatten_up_to(t) for t in (state.left, state.right)]
    rows = [leaf(*row) for row in zip(leaves, *sides)]
    new, left, right = (
      treedef.unflatten([row[i] for row in rows]) for i in range(3)
    )
    count = optax.safe_increment(state.count)
    return new, ShampooState(count, left, right)

  return optax.GradientTransformation(init_fn, update_fn)


def _advance(factor, state, outer, blocks, due):
  accumulate = lambda s: jax.vmap(factor.accumulate)(s, outer(blocks))
  keep = lambda s: s
  state = jax.lax.cond(due[0], accumulate, keep, state)
  return jax.lax.cond(due[1], jax.vmap(factor.refresh), keep, state)


@dataclasses.dataclass(frozen=True)
class _Cut:
  """A tensor as blocks [count, rows, columns]."""

  shape: tuple[int, ...]
  grid: tuple[int, int]
  sizes: tuple[int, int]

  @property
  def count(self) -> int:
    return self.grid[0] * self.grid[1]

  def split(self, x):
    folded = x.reshape(x.shape[0], -1)
    pads = [
      (0, k * n - have)
      for k, n, have in zip(self.grid, self.sizes, folded.shape)
    ]
    x = jnp.pad(folded, pads)
    (a, b), (m, n) = self.grid, self.sizes
    x = x.reshape(a, m, b, n).transpose(0, 2, 1, 3)
    return x.reshape(self.count, m, n)

  def merge(self, blocks):
    (a, b), (m, n) = self.grid, self.sizes
    x = blocks.reshape(a, b, m, n).transpose(0, 2, 1, 3).reshape(a * m, b * n)
    x = x[: self.shape[0], : math.prod(self.shape[1:])]
    return x.reshape(self.shape)


def _cut(shape, largest: int) -> _Cut:
  sides = (shape[0], math.prod(shape[1:]))
  grid = tuple(math.ceil(n / largest) for n in sides)
  sizes = tuple(math.ceil(n / k) for n, k in zip(sides, grid))
  return _Cut(tuple(shape), grid, sizes)


def shampoo(
  inner: optax.GradientTransformation, **options
) -> optax.GradientTransformation:
  """32-bit Shampoo in front of `inner`, such as `optax.adamw(1e-3)`."""
  return optax.chain(scale_by_shampoo(factors.EXACT, **options), inner)


def shampoo4bit(
  inner: optax.GradientTransformation, **options
) -> optax.GradientTransformation:
  """4-bit Shampoo in front of `inner`: a seventh of the preconditioner bytes.

  Eigenvectors and roots in Linear-2, blocks of 64 down each column, Bjorck
  rectification before each use; preconditioners below 64 x 64 stay exact.
  """
  return optax.chain(scale_by_shampoo(factors.Eigen(), **options), inner)
