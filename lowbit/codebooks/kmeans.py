"""Weighted k-means of numbers, row by row.

Lowers sum f_i (w_i - c)^2 over each row's centroids, f the sensitivity of each
weight (SqueezeLLM's objective; Kim et al., 2023, arXiv:2306.07629). Numbers
are sorted once, so that a cluster is an interval and prefix sums do the rest.
"""

import functools

import jax
import jax.numpy as jnp


@functools.partial(jax.jit, static_argnames=('clusters', 'iterations'))
def weighted_kmeans(
  w: jax.Array,
  weights: jax.Array,
  clusters: int,
  iterations: int = 50,
) -> jax.Array:
  """Lloyd's algorithm from weighted quantiles.

  Args:
    w: float32 [rows, n].
    weights: float32 [rows, n], not negative; a row of zeros counts as ones.
    clusters: Centroids a row.
    iterations: Of Lloyd's algorithm.

  Returns:
    Centroids, float32 [rows, clusters], ascending.
  """
  weights = usable(weights)
  return jax.vmap(lambda w, f: _row(w, f, clusters, iterations))(w, weights)


def usable(weights: jax.Array) -> jax.Array:
  """`weights`, with ones in rows where all are zero."""
  none = jnp.sum(weights, axis=-1, keepdims=True) == 0
  return jnp.where(none, 1.0, weights)


def _row(w, f, clusters, iterations):
  order = jnp.argsort(w)
  w, f = w[order], f[order]
  # Zero weights still have a place, so that no quantile is ill-defined.
  mass = jnp.cumsum(jnp.cbrt(f + 1e-3 * jnp.mean(f)))
  targets = (
    (jnp.arange(clusters, dtype=jnp.float32) + 0.5) / clusters * mass[-1]
  )
  start = w[jnp.searchsorted(mass, targets)]
  sums = jnp.stack([prefix(f), prefix(f * w)])

  def step(centroids, _):
    middles = (centroids[1:] + centroids[:-1]) / 2
    inner = jnp.searchsorted(w, middles)
    edges = jnp.concatenate([jnp.array([0]), inner, jnp.array([w.size])])
    total, moment = sums[:, edges[1:]] - sums[:, edges[:-1]]
    moved = jnp.where(total > 0, moment / jnp.where(total > 0, total, 1), 0)
    return jnp.sort(jnp.where(total > 0, moved, centroids)), None

  return jax.lax.scan(step, start, None, length=iterations)[0]


def prefix(x: jax.Array) -> jax.Array:
  """Sums of the first 0, 1, ..., n elements: [n] -> [n + 1]."""
  return jnp.concatenate([jnp.zeros(1, x.dtype), jnp.cumsum(x)])
