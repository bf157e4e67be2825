"""Any-precision codebooks: the b-bit code is the top b bits of the 8-bit code.

From a seed codebook, every cluster is split in two at its best point, again and
again; each width has its own table of centroids. Park et al., Any-Precision
LLM, 2024 (arXiv:2402.10517).
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp

from lowbit import quantize
from lowbit.codebooks import kmeans


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Nested:
  """Codes of the widest width, and one table a row for each width.

  At rest: the bit planes of the codes, and fp16 tables.
  """

  codes: jax.Array  # uint8 [rows, n].
  tables: tuple[jax.Array, ...]  # float16 [rows, 2^b], b = seed..bits.
  seed: int = dataclasses.field(metadata={'static': True})
  bits: int = dataclasses.field(metadata={'static': True})

  def codes_at(self, bits: int) -> jax.Array:
    """The codes of a smaller width: the top bits.

    Raises:
      ValueError: If there is no table for this width.
    """
    if not self.seed <= bits <= self.bits:
      raise ValueError(
        f'`bits` must lie in {self.seed}..{self.bits}, got {bits}.'
      )
    return self.codes >> jnp.uint8(self.bits - bits)

  def dequantize(self, bits: int) -> jax.Array:
    """The matrix at a width, float32 [rows, n]."""
    table = self.tables[bits - self.seed].astype(jnp.float32)
    codes = self.codes_at(bits).astype(jnp.int32)
    return jnp.take_along_axis(table, codes, axis=1)


def nest(
  w: jax.Array,
  weights: jax.Array | None = None,
  seed: int = 3,
  bits: int = 8,
) -> Nested:
  """Quantizes each row of `w` for all widths from `seed` to `bits`.

  Args:
    w: float32 [rows, n].
    weights: Sensitivities [rows, n], such as summed squared gradients; None
      for ones.
    seed: Bits of the k-means seed.
    bits: Bits of the stored codes, at most 8.

  Returns:
    A `Nested`.

  Raises:
    TypeError: If `w` is not floating point.
    ValueError: If shapes or widths do not fit.
  """
  quantize.check_float(w, 'w')
  weights = jnp.ones_like(w) if weights is None else weights
  if w.ndim != 2 or weights.shape != w.shape:
    raise ValueError(
      f'`w` and `weights` must be [rows, n] alike, got {w.shape} and '
      f'{weights.shape}.'
    )
  if not 1 <= seed <= bits <= 8:
    raise ValueError(f'1 <= seed <= bits <= 8 must hold, got {seed=}, {bits=}.')
  return _nest(w.astype(jnp.float32), weights, seed, bits)


@functools.partial(jax.jit, static_argnums=(2, 3))
def _nest(w, weights, seed, bits):
  weights = kmeans.usable(weights.astype(jnp.float32))
  centroids = kmeans.weighted_kmeans(w, weights, 2**seed)
  order = jnp.argsort(w, axis=1)
  sort = lambda a: jnp.take_along_axis(a, order, axis=1)
  x, f = sort(w), sort(weights)
  edges = jax.vmap(_edges)(x, centroids)
  tables = [jax.vmap(_means)(x, f, edges, centroids)]
  for _ in range(seed, bits):
    edges = jax.vmap(_split)(x, f, edges)
    parents = jnp.repeat(tables[-1], 2, axis=1)
    tables.append(jax.vmap(_means)(x, f, edges, parents))
  codes = jax.vmap(_labels, in_axes=(0, None))(edges, w.shape[1])
  codes = jnp.take_along_axis(codes, jnp.argsort(order, axis=1), axis=1)
  half = tuple(t.astype(jnp.float16) for t in tables)
  return Nested(codes.astype(jnp.uint8), half, seed, bits)


def _edges(x, centroids):
  """Where each cluster of sorted `x` begins, and the end: [k + 1]."""
  middles = (centroids[1:] + centroids[:-1]) / 2
  inner = jnp.searchsorted(x, middles)
  return jnp.concatenate([jnp.array([0]), inner, jnp.array([x.size])])


def _means(x, f, edges, fallback):
  """Weighted mean of each interval; `fallback` where it has no weight."""
  sums = jnp.stack([kmeans.prefix(f), kmeans.prefix(f * x)])
  total, moment = sums[:, edges[1:]] - sums[:, edges[:-1]]
  return jnp.where(total > 0, moment / jnp.where(total > 0, total, 1), fallback)


def _labels(edges, n):
  """The interval of each position: [n]."""
  return jnp.searchsorted(edges[1:-1], jnp.arange(n), side='right')


def _split(x, f, edges):
  """Cuts every interval at the point that leaves the least squared error.

  All n cuts are scored at once: with mass F and moment M of a part, its error
  is a constant less M^2 / F.
  """
  mass, moment = kmeans.prefix(f), kmeans.prefix(f * x)
  cut = jnp.arange(x.size)  # Elements before it go left.
  label = _labels(edges, x.size)
  start, end = edges[label], edges[label + 1]

  def gain(a, b):
    total = mass[b] - mass[a]
    part = moment[b] - moment[a]
    return jnp.where(total > 0, part**2 / jnp.where(total > 0, total, 1), 0.0)

  score = gain(start, cut) + gain(cut, end)
  k = edges.size - 1
  best = jax.ops.segment_max(score, label, k)
  first = jnp.where(score >= best[label], cut, x.size)
  chosen = jax.ops.segment_min(first, label, k)
  chosen = jnp.clip(chosen, edges[:-1], edges[1:])  # Empty intervals.
  both = jnp.stack([edges[:-1], chosen], axis=1).reshape(-1)
  return jnp.concatenate([both, edges[-1:]])
