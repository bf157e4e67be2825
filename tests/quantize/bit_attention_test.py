"""Attention over bit widths: schedule, mix, gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lowbit as lb
from lowbit.quantize import bit_attention

SPECS = ('int2z@channel', 'int4z@channel', 'int8z@channel')
MIX = bit_attention.BitAttention(SPECS)
X = jax.random.normal(jax.random.key(0), (8, 64))


def test_first_values_are_the_papers():
  p = MIX.init(X)
  np.testing.assert_allclose(p['alpha'], np.array([12, 10, 6]) / 14, rtol=1e-6)
  shares = bit_attention.attention(p)
  np.testing.assert_allclose(shares, 1 / 3, atol=1e-2)


def test_temperature_is_geometric_and_ends_in_one_width():
  at = lambda s: float(bit_attention.temperature(s, 300))
  np.testing.assert_allclose(at(0), 100, rtol=1e-6)
  np.testing.assert_allclose(at(300), 0.03, rtol=1e-5)
  np.testing.assert_allclose(at(150), np.sqrt(100 * 0.03), rtol=1e-5)
  p = bit_attention.cool(MIX.init(X), at(300))
  assert float(bit_attention.attention(p)[0]) > 0.999
  np.testing.assert_allclose(jnp.std(p['alpha']), 1, rtol=1e-6)


def test_the_mix_and_its_gradients():
  p = {'alpha': jnp.float32([0.5, -0.2, 0.1]), 'temperature': jnp.float32(0.7)}
  c = jax.random.normal(jax.random.key(1), X.shape)
  y, back = jax.vjp(lambda x, p: MIX(x, p, -1), X, p)
  dx, dp = back(c)
  logits = np.float64([0.5, -0.2, 0.1]) / np.float64(0.7)
  a = np.exp(logits) / np.exp(logits).sum()
  q = np.stack([np.asarray(lb.fake_quantize(X, s), np.float64) for s in SPECS])
  np.testing.assert_allclose(y, np.tensordot(a, q, 1), atol=1e-5)
  np.testing.assert_allclose(dx, c, rtol=1e-5)
  pull = (q * np.asarray(c)).sum(axis=(1, 2))
  want = a * (pull - a @ pull) / 0.7
  np.testing.assert_allclose(dp['alpha'], want, rtol=1e-3)
  assert float(dp['temperature']) == 0


def test_error_grows_as_it_cools():
  p = MIX.init(X)
  error = lambda t: float(
    jnp.mean((MIX(X, bit_attention.cool(p, t), -1) - X) ** 2)
  )
  errors = [error(t) for t in (100, 3, 1, 0.3, 0.03)]
  assert errors == sorted(errors)
  two = float(jnp.mean((lb.fake_quantize(X, SPECS[0]) - X) ** 2))
  np.testing.assert_allclose(errors[-1], two, rtol=1e-2)


def test_trees_of_other_quantizers_are_left_alone():
  tree = {'a': MIX.init(X), 'b': {'step': jnp.float32(2)}}
  cold = bit_attention.cool(tree, 0.03)
  assert float(cold['b']['step']) == 2
  assert float(cold['a']['temperature']) == np.float32(0.03)
  np.testing.assert_allclose(bit_attention.cost(cold), 1, rtol=1e-3)
  equal = {'a': {'alpha': jnp.zeros(3), 'temperature': jnp.float32(1)}}
  np.testing.assert_allclose(bit_attention.cost(equal), 7, rtol=1e-6)


@pytest.mark.parametrize(
  'specs', [('int4@channel',), ('int8@channel', 'int4@channel')]
)
def test_bad_specs(specs):
  with pytest.raises(ValueError, match='rising width'):
    bit_attention.BitAttention(specs)


def test_bad_schedule():
  with pytest.raises(ValueError, match='positive'):
    bit_attention.temperature(0, 10, last=0.0)
