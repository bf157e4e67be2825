"""dense() is the truth, and apply(x) is x @ dense()."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lowbit as lb
from lowbit import operators, transforms

KEYS = jax.random.split(jax.random.key(0), 8)
W = jax.random.normal(KEYS[0], (48, 32)) / 7
X = jax.random.normal(KEYS[1], (5, 3, 48))
CODED = operators.Coded(lb.quantize(W, 'int4@g16', axis=0))
SPARSE = operators.Sparse(
  jnp.asarray([1, 1, 40]),
  jnp.asarray([2, 2, 31]),
  jnp.asarray([1.0, 2.0, -3.0]),
  (48, 32),
)
LOW = operators.LowRank(W[:, :3], W[:3, :])
HALF = operators.Coded(lb.quantize(W[:24], 'mxfp4', axis=0))
OPS = {
  'matrix': operators.Matrix(W),
  'coded': CODED,
  'packed': CODED.pack(),
  'low rank': LOW,
  'sparse': SPARSE,
  'sum': operators.Sum(operators.Sum(CODED, SPARSE), LOW),
  'scaled': operators.Scaled(CODED, jnp.arange(1.0, 49.0), jnp.ones(32) * 3),
  'in scale': operators.Scaled(CODED, jnp.arange(1.0, 49.0)),
  'rotated': operators.Rotated(
    CODED, transforms.Hadamard(48, seed=1), transforms.Hadamard(32)
  ),
  'left': operators.Rotated(CODED, transforms.Hadamard(48, 16)),
  'permuted': operators.Permuted(CODED, jax.random.permutation(KEYS[2], 48)),
  'split': operators.Split((HALF, operators.Matrix(W[24:]))),
}


@pytest.mark.parametrize('name', OPS)
@pytest.mark.parametrize('jit', [jax.jit, lambda f: f], ids=['jit', 'eager'])
def test_apply_is_the_product_with_dense(name, jit):
  op = OPS[name]
  assert op.shape == (48, 32)
  got = jit(lambda op, x: op.apply(x))(op, X)
  want = X @ op.dense()
  chex.assert_trees_all_close(got, want, atol=1e-4 * float(jnp.abs(want).max()))
  assert op.apply(X.astype(jnp.bfloat16)).dtype == jnp.bfloat16
  chex.assert_trees_all_equal(lb.matmul(X, op), op.apply(X))


def test_algebraic_laws():
  sparse = jnp.zeros((48, 32)).at[1, 2].set(3).at[40, 31].set(-3)
  np.testing.assert_array_equal(SPARSE.dense(), sparse)
  chex.assert_trees_all_close(
    operators.Sum(CODED, SPARSE).dense(), CODED.dense() + sparse
  )
  back = operators.Rotated(
    operators.Rotated(CODED, transforms.Hadamard(48)), transforms.Hadamard(48)
  )  # L L W for an L that is not symmetric.
  matrix = transforms.Hadamard(48).matrix()
  chex.assert_trees_all_close(
    back.dense(), matrix @ matrix @ CODED.dense(), atol=1e-5
  )
  order = jax.random.permutation(KEYS[3], 48)
  permuted = operators.Permuted(operators.Matrix(W[order]), order)
  chex.assert_trees_all_equal(permuted.dense(), W)
  chex.assert_trees_all_close(OPS['split'].dense()[24:], W[24:])
  chex.assert_trees_all_equal(CODED.pack().dense(), CODED.dense())


def test_bits_add_up():
  assert CODED.bits() == 4 * W.size + 32 * W.size // 16
  assert CODED.pack().bits() == CODED.bits()
  assert LOW.bits() == 32 * 3 * (48 + 32)
  assert SPARSE.bits() == 3 * 3 * 32
  both = operators.Sum(CODED, LOW)
  assert both.bits() == CODED.bits() + LOW.bits()
  assert lb.bits_per_weight({'a': CODED}) == 6.0
  stacked = jax.tree.map(lambda x: jnp.stack([x, x]), CODED)
  assert lb.bits_per_weight(stacked) == 6.0


def test_quantize_input():
  op = operators.QuantizeInput(operators.Matrix(W), lb.Spec.parse('int8@token'))
  want = lb.fake_quantize(X, 'int8@token') @ W
  chex.assert_trees_all_close(op.apply(X), want, atol=1e-5)
  assert float(jnp.abs(op.apply(X) - X @ W).max()) > 1e-4
  grad = jax.grad(lambda x: op.apply(x).sum())(X)
  chex.assert_trees_all_close(
    grad, jnp.broadcast_to(W.sum(1), X.shape), atol=1e-4
  )


def test_bad_input():
  with pytest.raises(ValueError, match='must have length 48'):
    CODED.apply(X[..., :40])
  with pytest.raises(TypeError, match='floating-point'):
    CODED.apply(jnp.ones((2, 48), jnp.int32))
  with pytest.raises(ValueError, match='no weights'):
    lb.bits_per_weight({})


def test_decoded_operators_apply_alike():
  q = lb.quantize(jax.random.normal(jax.random.key(0), (16, 8)), 'int4@g8', 0)
  op = operators.QuantizeInput(operators.Coded(q), lb.Spec.parse('int8@token'))
  tree = operators.decode({'a': op, 'b': jnp.ones(3)})
  assert isinstance(tree['a'].op, operators.Matrix)
  x = jax.random.normal(jax.random.key(1), (4, 16))
  np.testing.assert_array_equal(tree['a'].apply(x), op.apply(x))
