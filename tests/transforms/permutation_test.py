import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lowbit as lb
from lowbit import transforms

KEYS = jax.random.split(jax.random.key(0), 3)
K = jax.random.normal(KEYS[0], (24, 2, 16)) * jnp.exp(
  jax.random.normal(KEYS[1], (1, 1, 16))
)
Q = jax.random.normal(KEYS[2], (24, 6, 16))


@pytest.mark.parametrize('rotary', [False, True])
def test_sorting_keys_leaves_the_logits(rotary):
  order = transforms.key_order(K, rotary)
  k, q = (transforms.permute_heads(a, order) for a in (K, Q))
  logits = lambda q, k: jnp.einsum('ihd,jhd->hij', q, jnp.repeat(k, 3, 1))
  np.testing.assert_allclose(logits(q, k), logits(Q, K), rtol=1e-4, atol=1e-4)
  power = jnp.sum(k**2, 0)
  power = power[:, :8] + power[:, 8:] if rotary else power
  assert bool(jnp.all(jnp.diff(power, axis=-1) >= -1e-4))
  if rotary:
    np.testing.assert_array_equal(order[:, 8:], order[:, :8] + 8)
  with pytest.raises(ValueError, match='heads, dim'):
    transforms.key_order(K[0])


def test_pre_shift_is_exact_and_limited():
  x = jax.random.normal(KEYS[0], (64, 24)) * jnp.exp2(
    jnp.arange(24.0)[None] % 8 - 4
  )
  w = jax.random.normal(KEYS[1], (24, 8))
  fmt = lb.formats.get('e2m1')
  shift = transforms.pre_shift(jnp.max(jnp.abs(x), 0), fmt)
  assert set(np.asarray(shift).tolist()) == {0, 1, 2, 3}
  up, down = transforms.apply_shift(x, w, shift)
  products = lambda x, w: x[:, :, None] * w[None]  # Exact, term by term.
  np.testing.assert_array_equal(products(up, down), products(x, w))
