import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lowbit import formats
from lowbit.kernels import storage

NAMES = [
  name
  for name in formats.names()
  if isinstance(formats.get(name), formats.Minifloat)
  and formats.get(name).bits <= 8
]


@pytest.mark.parametrize('name', NAMES)
def test_every_code_of_a_minifloat_is_read_by_its_bits(name):
  fmt = formats.get(name)
  codes = fmt.codes()
  fields = jnp.asarray(codes.astype(np.int32) & (2**fmt.bits - 1))
  values = jax.jit(storage.minifloats, static_argnums=1)(fields, fmt)
  want = np.asarray(fmt.decode(codes))
  np.testing.assert_array_equal(values, want)
  known = ~np.isnan(want)
  np.testing.assert_array_equal(
    np.signbit(values)[known], np.signbit(want)[known]
  )


@pytest.mark.parametrize('table', [(2.0, -1.0), (0.0, 1.0, 1.0, 3.0)])
def test_a_select_tree_is_a_look_up(table):
  fields = jnp.arange(len(table), dtype=jnp.int32)
  found = storage.select(fields, np.float32(table))
  chex.assert_trees_all_equal(found, np.float32(table))


@pytest.mark.parametrize('name', ['int8', 'int4', 'e2m3', 'nf3', 'int1'])
def test_pieces_are_the_codes_without_a_shift_by_zero(name):
  fmt = formats.get(name)
  s = storage.Storage(fmt)
  words = jax.random.bits(jax.random.key(0), (s.rows, 8), jnp.uint8)

  def fields(words):
    load = lambda at: jax.lax.slice_in_dim(words, at, at + 16)
    parts = jnp.concatenate(list(storage.pieces(load, s, 16)))
    return parts, storage.values(parts, s)

  got, _ = fields(words)
  chex.assert_trees_all_equal(got, storage.unpack(words, s))
  # Which XLA keeps, and may compile with the 0 as a variable.
  text = str(jax.make_jaxpr(fields)(words))
  assert re.search(r'shift_\w+ \w+ \d', text) or fmt.bits == 8
  assert not re.search(r'shift_\w+ \w+ 0\b', text)
