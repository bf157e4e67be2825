import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lowbit as lb
from lowbit.quantize import integer_dot, packing

KEYS = jax.random.split(jax.random.key(0), 2)
X = jax.random.normal(KEYS[0], (6, 37)) + 0.7
W = jax.random.normal(KEYS[1], (5, 37)) - 0.2


@pytest.mark.parametrize('x', ['int8@channel', 'int8z@tensor', 'int4z@token'])
@pytest.mark.parametrize('w', ['int8@channel', 'int8z@channel'])
def test_integer_products_are_those_of_the_values(x, w):
  q, p = lb.quantize(X, x), lb.quantize(W, w)
  got = integer_dot.integer_matmul(q, p)
  a, b = (np.asarray(lb.dequantize(t), np.float64) for t in (q, p))
  np.testing.assert_allclose(got, a @ b.T, rtol=1e-5, atol=1e-5)


def test_every_correction_is_needed():
  """Exact in integers, and wrong without any one of the three terms."""
  q, p = lb.quantize(X, 'int8z@tensor'), lb.quantize(W, 'int8z@tensor')
  a, b = (np.asarray(t.codes, np.int64) for t in (q, p))
  z, y = int(q.zero[0, 0]), int(p.zero[0, 0])
  assert z
  assert y
  want = (a - z) @ (b - y).T
  terms = [-y * a.sum(1)[:, None], -z * b.sum(1)[None], 37 * z * y]
  np.testing.assert_array_equal(a @ b.T + sum(terms), want)
  for i in range(3):
    rest = sum(t for j, t in enumerate(terms) if j != i)
    assert (a @ b.T + rest != want).all()


@pytest.mark.parametrize('n', [1, 8, 37, 300])
def test_signs_multiply_by_xnor_and_popcount(n):
  rng = np.random.default_rng(n)
  a, b = (rng.choice([-1, 1], (4, n)) for _ in range(2))
  pack = lambda v: packing.pack_codes(jnp.asarray(v > 0, jnp.uint8), 1)
  got = integer_dot.xnor_dot(pack(a)[:, None], pack(b)[None], n)
  np.testing.assert_array_equal(got, a @ b.T)


def test_signs_as_they_are_packed():
  words = [lb.pack(lb.quantize(t, 'int1@tensor')).words for t in (X[:5], W[:5])]
  got = integer_dot.xnor_dot(*words, 37)
  want = jnp.sum(jnp.where(X[:5] * W[:5] < 0, -1, 1), axis=1)
  np.testing.assert_array_equal(got, want)


def test_bad_input():
  q = lb.quantize(X, 'int8@channel')
  for bad in ('int4@g8', 'e4m3@channel'):
    with pytest.raises(ValueError, match='one scale for the tensor'):
      integer_dot.integer_matmul(q, lb.quantize(W, bad))
  with pytest.raises(ValueError, match='share K'):
    integer_dot.integer_matmul(q, lb.quantize(W[:, :30], 'int8@channel'))
  with pytest.raises(TypeError, match='uint8'):
    integer_dot.xnor_dot(jnp.ones(3), jnp.ones(3), 3)
