import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lowbit as lb
from lowbit.quantize import histogram

X = np.random.default_rng(3).standard_normal(1_000_000).astype(np.float32)


def reference_entropy(counts, levels):
  """(i that wins, divergences) by the words of the calibrator, in float64."""
  found = []
  for i in range(levels, len(counts) + 1):
    inside = counts[:i].astype(np.float64)
    p, q = inside.copy(), np.zeros(i)
    p[-1] += counts[i:].sum()
    for level in range(levels):
      bins = [j for j in range(i) if j * levels // i == level and inside[j] > 0]
      for j in bins:
        q[j] = inside[bins].sum() / len(bins)
    p, q = p / p.sum(), q / max(q.sum(), 1)
    used = p > 0
    with np.errstate(divide='ignore'):
      found.append((p[used] * np.log(p[used] / q[used])).sum())
  return levels + int(np.argmin(found)), np.array(found)


def test_entropy_is_the_written_rule():
  rng = np.random.default_rng(0)
  for counts in (rng.poisson(1e4 * np.exp(-(np.arange(64) ** 2) / 300.0)),):
    h = histogram.Histogram(jnp.asarray(counts, jnp.int32), jnp.float32(0.5))
    want, _ = reference_entropy(counts, 8)
    got = float(histogram.entropy_range(h, 8))
    assert got == min((want + 0.5) * 0.5, 32.0)


def test_entropy_on_a_million_gaussians():
  h = jax.jit(histogram.observe)(histogram.empty(), X)
  assert int(h.counts.sum()) == X.size
  got = float(histogram.entropy_range(h))
  np.testing.assert_allclose(got, 4.87, atol=0.02)  # 4.9 of a maximum of 5.6.
  scale = lb.quantize(jnp.asarray(X), 'int8@tensor:entropy').scale
  np.testing.assert_allclose(scale[0], got / 127, rtol=1e-6)


def test_a_histogram_grows_by_doubling():
  parts = np.split(X[:40_000], 4)
  h = histogram.empty(64)
  for factor, part in zip((0.01, 1.0, 0.1, 37.0), parts):
    h = histogram.observe(h, jnp.asarray(part * np.float32(factor)))
  whole = np.abs(
    np.concatenate([p * f for f, p in zip((0.01, 1, 0.1, 37), parts)])
  )
  width = float(h.width)
  first = np.abs(parts[0] * np.float32(0.01)).max() / np.float32(64)
  assert np.log2(width / first) == round(np.log2(width / first))
  assert 32 * width < whole.max() <= 64 * width
  want = np.histogram(whole, 64, (0, 64 * width))[0]
  # Merged bins are exact; numbers next to an edge may differ by rounding.
  assert np.abs(want - np.asarray(h.counts)).sum() <= 8
  assert int(h.counts.sum()) == 40_000


def test_percentiles_and_special_values():
  h = histogram.observe(histogram.empty(), X)
  for percent in (50, 99, 99.9, 99.99):
    want = np.percentile(np.abs(X), percent)
    got = float(histogram.percentile_range(h, percent))
    assert abs(got - want) <= 1.5 * float(h.width)
  odd = jnp.asarray([jnp.nan, jnp.inf, -jnp.inf, 1.0, 0.0])
  assert int(histogram.observe(histogram.empty(), odd).counts.sum()) == 2
  zeros = histogram.observe(histogram.empty(), jnp.zeros(5))
  assert (float(zeros.width), int(zeros.counts[0])) == (0.0, 5)
  np.testing.assert_array_equal(
    lb.fake_quantize(jnp.zeros((2, 8)), 'int8@tensor:entropy'), 0
  )


def test_bad_input():
  with pytest.raises(ValueError, match='levels'):
    histogram.entropy_range(histogram.empty(64))
  for spec in ('e4m3@tensor:entropy', 'int4z@tensor:entropy'):
    with pytest.raises(ValueError, match='entropy counts|rules absmax'):
      lb.Spec.parse(spec)
  with pytest.raises(ValueError, match='no part of a sweep'):
    lb.quantize_grid(jnp.ones((2, 8)), ['int8@tensor:entropy'])
