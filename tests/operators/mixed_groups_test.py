"""One wide group in every window: values, bits, and bad input."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lowbit as lb
from lowbit.operators import mixed_groups

W = jax.random.normal(jax.random.key(0), (6, 96))


@pytest.mark.parametrize('every', [2, 3, 6])
def test_each_group_is_quantized_by_its_own_spec(every):
  op = mixed_groups.mixed_groups(W, 'int2z@g8', 'int8z@g8', every)
  assert op.shape == (96, 6)
  parts = np.asarray(W).reshape(6, -1, every, 8)
  reach = parts.max(-1) - parts.min(-1)
  is_wide = np.arange(every) == reach.argmax(-1)[..., None]
  narrow = lb.fake_quantize(W, 'int2z@g8').reshape(parts.shape)
  wide = lb.fake_quantize(W, 'int8z@g8').reshape(parts.shape)
  want = np.where(is_wide[..., None], wide, narrow).reshape(6, 96).T
  np.testing.assert_array_equal(op.dense(), want)
  x = jax.random.normal(jax.random.key(1), (4, 96))
  chex.assert_trees_all_close(jax.jit(op.apply)(x), x @ want, atol=1e-4)


def test_bits_are_counted():
  op = mixed_groups.mixed_groups(jnp.ones((4, 1024)), 'int2z@g16', 'int4z@g16')
  codes, zeros, scales, place = 2.5, 2.5 / 16, 32 / 16, 2 / 64
  assert lb.bits(op) / 4096 == pytest.approx(codes + zeros + scales + place)


@pytest.mark.parametrize(
  ('args', 'hint'),
  [
    (('int2z@g8', 'int4z@g16'), 'one size'),
    (('int2z@channel', 'int4z@channel'), 'one size'),
    (('int2z@g8', 'int4z@g8', 1), 'at least 2'),
    (('int2z@g8', 'int4z@g8', 5), 'do not divide'),
  ],
)
def test_bad_input(args, hint):
  with pytest.raises(ValueError, match=hint):
    mixed_groups.mixed_groups(W, *args)
