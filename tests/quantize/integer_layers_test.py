"""Dynamic fixed point, and layers that multiply integers alone."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lowbit.quantize import dynamic_fixed, integer_layers

KEY = jax.random.key(0)
WIDE = integer_layers.Widths(16, 16, 16)


def draw(seed, *shape, scale=1.0):
  return scale * jax.random.normal(jax.random.key(seed), shape)


@pytest.mark.parametrize('bits', [2, 4, 8, 12, 16])
@pytest.mark.parametrize('scale', [1e-20, 1.0, 3e30])
def test_mapping_is_rounding_to_the_largest_exponent(bits, scale):
  x = np.asarray(draw(1, 40, 50, scale=scale))
  q = dynamic_fixed.to_fixed(jnp.asarray(x), bits)
  wide = x.astype(np.float64)
  top = np.floor(np.log2(np.abs(wide).max()))
  step = 2.0 ** (top - bits + 2)
  limit = 2 ** (bits - 1) - 1
  step *= 2 if np.abs(wide).max() > limit * step else 1
  want = np.sign(wide) * np.floor(np.abs(wide) / step + 0.5)
  np.testing.assert_array_equal(np.asarray(q.mantissa), want)
  assert 2.0 ** int(q.exponent) == step
  np.testing.assert_array_equal(dynamic_fixed.to_float(q), want * step)


def test_powers_of_two_are_exact_and_zeros_stay():
  x = jnp.asarray([1.0, -0.5, 0.25, 0.0, -0.0])
  got = dynamic_fixed.to_float(dynamic_fixed.to_fixed(x, 8))
  np.testing.assert_array_equal(got, x)
  zero = dynamic_fixed.to_fixed(jnp.zeros((3, 0)), 8)
  chex.assert_shape(zero.mantissa, (3, 0))
  assert not np.any(dynamic_fixed.to_fixed(jnp.zeros(4), 8, KEY).mantissa)


def test_a_power_of_two_scale_wastes_up_to_a_bit():
  # A largest value of 1.9 leaves all levels in use; one of 1.001 only half.
  levels = lambda top: int(
    jnp.max(dynamic_fixed.to_fixed(jnp.float32([top]), 8).mantissa)
  )
  assert levels(1.9) > 120
  assert levels(1.001) == 64


def test_stochastic_rounding_is_unbiased_from_small_to_large():
  x = jnp.asarray([1.999, 1.0, 0.3, -0.01, 0.004, 1e-4, -1e-6])
  keys = jax.random.split(KEY, 2**15)
  one = lambda k: dynamic_fixed.to_float(dynamic_fixed.to_fixed(x, 4, k))
  mean = np.asarray(jax.jit(lambda: jnp.mean(jax.vmap(one)(keys), 0))())
  step = 0.5  # 1.999 would round to 8 steps of 1/4.
  sigma = np.sqrt(np.abs(x) * step / 2**15) + 1e-5
  assert np.all(np.abs(mean - x) < 5 * sigma), mean
  assert not np.any(dynamic_fixed.to_fixed(x, 4).mantissa[4:])


def test_values_that_are_not_finite_show():
  for bad in (np.nan, np.inf):
    q = dynamic_fixed.to_fixed(jnp.asarray([1.0, bad]), 8)
    assert np.all(np.isnan(dynamic_fixed.to_float(q)))
    w = dynamic_fixed.to_fixed(jnp.ones((2, 1)), 8)
    one = dynamic_fixed.Fixed(q.mantissa[None], q.exponent, 8)
    y = dynamic_fixed.contract(one, w, integer_layers.MATMUL)
    assert np.all(np.isnan(y))


@pytest.mark.parametrize('bits', [8, 12, 16])
def test_worst_case_sums_do_not_overflow(bits):
  """All mantissas at their limits, against Python's own integers."""
  limit, terms = 2 ** (bits - 1) - 1, 3000
  for signs in ((1, 1), (1, -1), (-1, -1)):
    a, b = (
      dynamic_fixed.Fixed(jnp.full(shape, s * limit), jnp.int32(0), bits)
      for s, shape in zip(signs, ((1, terms), (terms, 1)))
    )
    got = float(dynamic_fixed.contract(a, b, integer_layers.MATMUL)[0, 0])
    want = signs[0] * signs[1] * terms * limit**2
    assert abs(got / want - 1) < 2**-23


@pytest.mark.parametrize('bits', [8, 16])
def test_products_equal_numpys_integers(bits):
  a, b = draw(2, 7, 300), draw(3, 300, 5)
  qa, qb = (dynamic_fixed.to_fixed(v, bits) for v in (a, b))
  got = dynamic_fixed.contract(qa, qb, integer_layers.MATMUL)
  whole = np.asarray(qa.mantissa, np.int64) @ np.asarray(qb.mantissa, np.int64)
  want = whole * 2.0 ** int(qa.exponent + qb.exponent)
  np.testing.assert_array_equal(got, want.astype(np.float32))


def exact_linear(x, w):
  return x @ w


def exact_norm(x, gain, bias):
  mean = jnp.mean(x, axis=1, keepdims=True)
  variance = jnp.mean((x - mean) ** 2, axis=1, keepdims=True)
  scaled = (x - mean) * jax.lax.rsqrt(variance + 1e-5)
  return scaled * gain[None] + bias[None]


def pull(layer, args, c):
  y, back = jax.vjp(layer, *args)
  return jax.tree.map(np.asarray, (y, *back(c)))


def worst(got, want):
  return max(
    np.linalg.norm(g - w) / np.linalg.norm(w) for g, w in zip(got, want)
  )


CASES = {
  'linear': (
    lambda widths: lambda x, w: integer_layers.linear(x, w, KEY, widths),
    exact_linear,
    (draw(4, 16, 48), draw(5, 48, 24)),
    draw(6, 16, 24),
  ),
  'layer_norm': (
    lambda widths: lambda *v: integer_layers.layer_norm(*v, KEY, widths),
    exact_norm,
    (3 + 2 * draw(7, 16, 48), 1 + 0.1 * draw(8, 48), draw(9, 48)),
    draw(10, 16, 48),
  ),
  'embed': (
    lambda widths: (
      lambda table: integer_layers.embed(
        table, jnp.asarray([3, 1, 3, 0]), KEY, widths
      )
    ),
    lambda table: table[jnp.asarray([3, 1, 3, 0])],
    (draw(11, 5, 8),),
    draw(12, 4, 8),
  ),
}


@pytest.mark.parametrize('name', CASES)
def test_values_and_gradients_near_float_by_their_bits(name):
  build, exact, args, c = CASES[name]
  want = pull(exact, args, c)
  errors = [
    worst(pull(build(integer_layers.Widths(b, b, b)), args, c), want)
    for b in (8, 10, 12, 16)
  ]
  assert errors[0] < 0.1
  for wide, narrow, factor in zip(errors[1:], errors, (4, 4, 16)):
    assert 0.5 * factor < narrow / wide < 2 * factor, errors


def equations(jaxpr):
  for equation in jaxpr.eqns:
    yield equation
    for value in equation.params.values():
      for inner in value if isinstance(value, (tuple, list)) else [value]:
        inner = getattr(inner, 'jaxpr', inner)
        if hasattr(inner, 'eqns'):
          yield from equations(inner)


REDUCES = ('dot_general', 'reduce_sum', 'scatter-add', 'conv_general_dilated')


def reductions(f, *args):
  jaxpr = jax.make_jaxpr(f)(*args)
  return [
    (e.primitive.name, e.invars[0].aval.dtype, e.outvars[0].aval.dtype)
    for e in equations(jaxpr.jaxpr)
    if e.primitive.name in REDUCES
  ]


@pytest.mark.parametrize('name', CASES)
@pytest.mark.parametrize('widths', [integer_layers.Widths(), WIDE])
def test_no_product_or_sum_is_in_float(name, widths):
  build, exact, args, c = CASES[name]
  both = lambda layer: (
    lambda args, c: (layer(*args), jax.vjp(layer, *args)[1](c))
  )
  found = reductions(both(build(widths)), args, c)
  assert found
  for primitive, taken, given in found:
    assert taken == given == jnp.int32, (primitive, taken, given)
  # The search itself sees a float product where there is one.
  floats = reductions(both(exact), args, c)
  assert any(taken == jnp.float32 for _, taken, _ in floats)


def test_nearest_gradients_are_biased_and_stochastic_ones_are_not():
  _, exact, args, c = CASES['linear']
  c = c * jnp.exp(3 * draw(13, *c.shape))  # Wide range, as gradients have.
  exact_dw = pull(exact, args, c)[2]

  def mean(stochastic):
    widths = integer_layers.Widths(16, 16, 4, stochastic)

    def dw(key):
      f = lambda w: integer_layers.linear(args[0], w, key, widths)
      return jax.vjp(f, args[1])[1](c)[0]

    got = jnp.mean(jax.vmap(dw)(jax.random.split(KEY, 1000)), axis=0)
    return worst([np.asarray(got)], [exact_dw])

  assert mean(True) < 0.3 * mean(False)


@pytest.mark.parametrize(
  ('call', 'error', 'hint'),
  [
    (lambda: dynamic_fixed.to_fixed(jnp.ones(3), 24), ValueError, 'bits'),
    (lambda: dynamic_fixed.to_fixed(jnp.arange(3), 8), TypeError, 'float'),
    (
      lambda: jax.eval_shape(
        lambda x, w: integer_layers.linear(x, w, KEY, WIDE),
        jax.ShapeDtypeStruct((1, 2**16), jnp.float32),
        jax.ShapeDtypeStruct((2**16, 1), jnp.float32),
      ),
      ValueError,
      '65535',
    ),
    (
      lambda: jax.eval_shape(
        lambda x, g: integer_layers.layer_norm(x, g, g, KEY, WIDE),
        jax.ShapeDtypeStruct((1, 2**16), jnp.float32),
        jax.ShapeDtypeStruct((2**16,), jnp.float32),
      ),
      ValueError,
      'int32',
    ),
  ],
)
def test_bad_input(call, error, hint):
  with pytest.raises(error, match=hint):
    call()
