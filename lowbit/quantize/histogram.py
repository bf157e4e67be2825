"""Histograms of magnitudes, and the ranges that calibrators read from them.

The calibrators of Wu et al., Integer Quantization for Deep Learning Inference,
2020 (arXiv:2004.09602): maximum, percentile, and entropy. A histogram grows by
doubling its bins when larger data arrive, so that batches come one by one.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

BINS = 2048


class Histogram(NamedTuple):
  """Counts of |x| in equal bins from 0; a pytree."""

  counts: jax.Array  # int32 [bins].
  width: jax.Array  # float32 [], of one bin; 0 before there are data.


def empty(bins: int = BINS) -> Histogram:
  """A histogram of nothing."""
  return Histogram(jnp.zeros(bins, jnp.int32), jnp.zeros((), jnp.float32))


def observe(histogram: Histogram, x: jax.Array) -> Histogram:
  """The histogram with the magnitudes of `x` added.

  The first batch's largest magnitude sets the range, and a larger one doubles
  the bins as often as it takes, by merging pairs.

  Args:
    histogram: Of what came before.
    x: Floats of any shape; NaN and infinities are left out.
  """
  counts, width = histogram
  bins = counts.size
  magnitude = jnp.abs(x.reshape(-1).astype(jnp.float32))
  magnitude = jnp.where(jnp.isfinite(magnitude), magnitude, -1.0)
  top = jnp.max(magnitude, initial=0.0)
  first = width == 0
  safe = jnp.where(first, 1.0, width)
  # Doublings, by comparison with exact powers of two.
  powers = jnp.exp2(jnp.arange(128, dtype=jnp.float32))
  reach = top / safe / bins
  doublings = jnp.where(first, 0, jnp.sum(powers < reach))
  merged = jnp.zeros_like(counts).at[jnp.arange(bins) >> doublings].add(counts)
  width = jnp.where(first, top / bins, width * powers[doublings])
  index = jnp.floor(magnitude / jnp.where(width > 0, width, 1.0))
  index = jnp.minimum(index.astype(jnp.int32), bins - 1)
  index = jnp.where(magnitude < 0, bins, index)  # Out of bounds: dropped.
  return Histogram(merged.at[index].add(1, mode='drop'), width)


def percentile_range(histogram: Histogram, percent: float) -> jax.Array:
  """The magnitude below which `percent` per cent lie: float32 []."""
  total = jnp.sum(histogram.counts).astype(jnp.float32)
  share = jnp.cumsum(histogram.counts).astype(jnp.float32) / total
  index = jnp.argmax(share >= jnp.float32(percent / 100))
  return (index + 1).astype(jnp.float32) * histogram.width


def entropy_range(histogram: Histogram, levels: int = 128) -> jax.Array:
  """The clip whose quantized distribution is nearest in KL divergence.

  For each i from `levels` to the number of bins: P holds the first i bins, with
  the tail added to the last of them; Q merges the same bins, without the tail,
  to `levels` levels, and spreads each over its bins that are not empty. The
  clip is (i + 1/2) bin widths for the least KL(P || Q). (With the tail in Q as
  well, i = levels always gives 0.) A Q that lacks a bin of P is out.

  Args:
    histogram: Of magnitudes, with at least `levels` bins.
    levels: Magnitudes of the quantizer: 128 for int8.

  Returns:
    float32 [].

  Raises:
    ValueError: If there are fewer bins than levels.
  """
  counts = histogram.counts.astype(jnp.float32)
  bins = counts.size
  if bins < levels:
    raise ValueError(
      f'`histogram` must have at least {levels=} bins, got {bins}.'
    )
  place = jnp.arange(bins)
  total = jnp.sum(counts)

  def divergence(i):
    inside = jnp.where(place < i, counts, 0.0)
    kept = jnp.sum(inside)
    p = inside + jnp.where(place == i - 1, total - kept, 0.0)
    level = jnp.minimum(place * levels // i, levels - 1)
    zeros = jnp.zeros(levels, jnp.float32)
    mass = zeros.at[level].add(inside)
    used = zeros.at[level].add((inside > 0).astype(jnp.float32))
    spread = (mass / jnp.maximum(used, 1.0))[level]
    q = jnp.where(inside > 0, spread, 0.0)
    p, q = p / total, q / jnp.maximum(kept, 1.0)
    ratio = jnp.where(p > 0, p / q, 1.0)  # Infinite where Q lacks the bin.
    return jnp.sum(p * jnp.log(ratio))

  order = jnp.arange(levels, bins + 1)
  least = jnp.argmin(jax.lax.map(divergence, order, batch_size=32))
  clip = (order[least].astype(jnp.float32) + 0.5) * histogram.width
  return jnp.minimum(clip, bins * histogram.width)  # Not beyond the data.
