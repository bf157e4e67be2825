import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lowbit import codebooks

W = jax.random.normal(jax.random.key(0), (8, 4096))


def best_split(x, f):
  """Exhaustive two-means of sorted numbers, in float64."""

  def error(x, f):
    mean = (f * x).sum() / f.sum()
    return (f * (x - mean) ** 2).sum()

  cuts = range(1, len(x))
  return min(cuts, key=lambda c: error(x[:c], f[:c]) + error(x[c:], f[c:]))


def test_codes_are_nested_and_errors_are_those_of_the_card():
  n = codebooks.nest(W)
  assert n.codes.dtype == jnp.uint8
  # 4096 Gaussians a row; k-means seeds differ by a few per cent.
  want = {3: 0.0338, 4: 0.0092, 5: 0.00237, 6: 5.9e-4, 8: 3.0e-5}
  for bits, error in want.items():
    got = float(jnp.mean((W - n.dequantize(bits)) ** 2))
    np.testing.assert_allclose(got, error, rtol=0.12)
    np.testing.assert_array_equal(n.codes_at(bits), n.codes >> (8 - bits))


def test_a_split_is_the_best_one():
  w = jnp.sort(W[:4, :40], axis=1)
  f = jax.random.uniform(jax.random.key(1), w.shape) + 0.1
  n = codebooks.nest(w, f, seed=1, bits=2)
  for row in range(4):
    codes = np.asarray(n.codes[row])
    for side in (0, 1):
      inside = codes >> 1 == side
      x, g = np.asarray(w[row])[inside], np.asarray(f[row])[inside]
      cut = best_split(x.astype(np.float64), g.astype(np.float64))
      assert (codes[inside] & 1).tolist() == [0] * cut + [1] * (len(x) - cut)


def test_weights_pull_the_centroids():
  heavy = jnp.where(W > 1.5, 1000.0, 1.0)
  plain, pulled = codebooks.nest(W), codebooks.nest(W, heavy)
  error = lambda n: float(jnp.sum(heavy * (W - n.dequantize(3)) ** 2))
  assert error(pulled) < 0.6 * error(plain)
  codebooks.nest(W, jnp.zeros_like(W))  # Counts as ones.
  few = codebooks.nest(jnp.ones((2, 32)))  # Empty clusters copy their parent.
  np.testing.assert_array_equal(few.dequantize(8), 1.0)


def test_bad_input():
  with pytest.raises(ValueError, match=r'3\.\.8'):
    codebooks.nest(W).dequantize(2)
  with pytest.raises(ValueError, match='alike'):
    codebooks.nest(W, jnp.ones(3))
  with pytest.raises(ValueError, match='seed'):
    codebooks.nest(W, seed=5, bits=4)
  with pytest.raises(TypeError, match='floating'):
    codebooks.nest(jnp.ones((2, 4), jnp.int32))
