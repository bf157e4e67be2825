"""Two components: exact sums under jit, and what Collage keeps."""

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import optax
import pytest

from lowbit import optim
from lowbit.optim import expansion

BF16 = jnp.bfloat16
wide = lambda x: np.asarray(x, np.float64)


def pairs(dtype, n=20_000, seed=0):
  """Random floats of many exponents."""
  rng = np.random.default_rng(seed)
  draw = lambda: rng.normal(size=n) * 2.0 ** rng.integers(-6, 6, n)
  return (jnp.asarray(draw(), jnp.float32).astype(dtype) for _ in range(2))


def test_sums_and_products_lose_nothing_under_jit():
  a, b = pairs(BF16)
  s, e = jax.jit(expansion.two_sum)(a, b)
  np.testing.assert_array_equal(wide(s) + wide(e), wide(a) + wide(b))
  is_larger = np.abs(wide(a)) >= np.abs(wide(b))
  s, e = jax.jit(expansion.fast_two_sum)(a, b)
  kept = wide(s) + wide(e) == wide(a) + wide(b)
  assert kept[is_larger].all()
  assert not kept[~is_larger].all()  # The precondition is one.
  assert np.mean(wide(e) != 0) > 0.3
  p, e = jax.jit(expansion.two_prod)(a, b)
  np.testing.assert_array_equal(wide(p) + wide(e), wide(a) * wide(b))


def test_sums_equal_numpy_bit_for_bit():
  a, b = (np.asarray(x) for x in pairs(BF16, seed=1))
  s = (a.astype(np.float32) + b.astype(np.float32)).astype(ml_dtypes.bfloat16)
  got, _ = jax.jit(expansion.two_sum)(jnp.asarray(a), jnp.asarray(b))
  np.testing.assert_array_equal(np.asarray(got), s)


def test_bfloat16_has_these_numbers():
  r = expansion.rounder(BF16)
  for x, want in [(0.999, 1.0), (0.99, 0.98828125), (0.95, 0.94921875)]:
    assert float(r(jnp.float32(x))) == want
  assert float(r(jnp.float32(200) + 0.4)) == 200
  assert float(r(jnp.float32(200) + 0.6)) == 201
  lead, rest = expansion.split(0.999, BF16)
  assert float(lead) == 1.0
  assert float(rest) == pytest.approx(-0.00099945, rel=1e-4)


def test_wide_floats_are_refused():
  with pytest.raises(TypeError, match='float16 underflow'):
    expansion.rounder(jnp.float32)
  with pytest.raises(TypeError, match='float32'):
    optim.collage(1e-3).init({'w': jnp.zeros(3)})
  p, tx = jnp.zeros(3, BF16), optim.collage(1e-3)
  state = tx.init(p)
  with pytest.raises(ValueError, match='params'):
    tx.update(p, state)


def second_moment(two_components):
  """sqrt-free: nu after 3000 steps of gradient 1 is 1 in exact arithmetic."""
  tx = optim.collage(
    0.0, second_moment=two_components, weights=False, weight_decay=0.0
  )
  p = jnp.ones(4, BF16)
  step = lambda state, _: (tx.update(p, state, p)[1], None)
  state, _ = jax.jit(lambda s: jax.lax.scan(step, s, None, 3000))(tx.init(p))
  return float(state.nu[0])


def test_beta2_of_one_stops_the_second_moment():
  assert second_moment(False) == pytest.approx(0.5, abs=0.02)
  want = 1 - 0.999**3000
  assert second_moment(True) == pytest.approx(want, abs=0.02)


@pytest.mark.parametrize(
  'rate, quality, lost',
  [(1e-2, 0.9996, 0.088), (1e-3, 0.80, 0.60), (1e-4, 0.116, 0.95)],
)
def test_what_bfloat16_loses_of_an_update(rate, quality, lost):
  rng = np.random.default_rng(0)
  theta = jnp.asarray(0.5 * rng.normal(size=2**17), jnp.float32).astype(BF16)
  d = jnp.asarray(rate * rng.normal(size=2**17), jnp.float32).astype(BF16)
  after = optim.apply_updates(theta, d)
  got = float(optim.effective_descent(d, theta, after))
  assert got == pytest.approx(quality, rel=0.05)
  gone = float(optim.lost_fraction(d, theta, after))
  assert gone == pytest.approx(lost, rel=0.05)
  rest = jnp.zeros_like(theta)
  lead, rest = jax.jit(expansion.grow)(theta, rest, d)
  whole = lead.astype(jnp.float32) + rest.astype(jnp.float32)
  assert float(optim.effective_descent(d, theta, whole)) > 0.999


def test_the_sum_of_components_follows_float32():
  rng = np.random.default_rng(0)
  theta = jnp.asarray(0.5 * rng.normal(size=4096), jnp.float32).astype(BF16)
  steps = jnp.asarray(1e-4 * rng.normal(size=(100, 4096)), jnp.float32)
  steps = steps.astype(BF16)

  def add(carry, d):
    plain, lead, rest = carry
    plain = optim.apply_updates(plain, d)
    return (plain, *expansion.grow(lead, rest, d)), None

  start = (theta, theta, jnp.zeros_like(theta))
  (plain, lead, rest), _ = jax.jit(lambda c: jax.lax.scan(add, c, steps))(start)
  want = wide(theta) + wide(steps).sum(0)
  rms = lambda x: np.sqrt(np.mean((x - want) ** 2))
  travel = np.sqrt(np.mean((want - wide(theta)) ** 2))
  assert rms(wide(lead) + wide(rest)) < 0.02 * travel
  assert rms(wide(plain)) > 0.5 * travel
  assert rms(wide(lead)) > 5 * rms(wide(lead) + wide(rest))


def test_an_update_larger_than_the_weight_costs_the_rest():
  lead, rest = jnp.asarray([1e-3], BF16), jnp.zeros(1, BF16)
  x = jnp.asarray([1.0], BF16)
  a, b = expansion.grow(lead, rest, x)
  c, d = expansion.grow(x, rest, lead)
  exact = wide(x) + wide(lead)
  assert wide(c) + wide(d) == exact
  assert wide(a) + wide(b) != exact


def test_updates_land_on_the_leading_component():
  p = {'w': jnp.asarray(np.linspace(-2, 2, 64), jnp.float32).astype(BF16)}
  tx = optim.collage_plus(1e-2)
  with jax.numpy_dtype_promotion('standard'):
    state = tx.init(p)
    for i in range(5):
      g = jax.tree.map(lambda x, i=i: jnp.cos(x * (i + 1)), p)
      u, state = tx.update(g, state, p)
      got = optax.apply_updates(p, u)
      np.testing.assert_array_equal(got['w'], optim.apply_updates(p, u)['w'])
      p = got
  # The second component is at most half a unit of the last place.
  ulp = 2.0 ** (np.floor(np.log2(np.abs(wide(p['w'])))) - 7)
  assert (np.abs(wide(state.rest['w'])) <= ulp / 2).all()


def test_bytes_a_parameter():
  p = {'w': jnp.zeros(1024, BF16)}
  bits = lambda tx: optim.state_bits(tx.init(p)) - 32
  plain = optim.collage(1e-3, weights=False, second_moment=False)
  assert bits(plain) == 32 * 1024
  assert bits(optim.collage_light(1e-3)) == 48 * 1024
  assert bits(optim.collage_plus(1e-3)) == 64 * 1024
