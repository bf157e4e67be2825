import importlib

import jax
import jax.numpy as jnp
import pytest

import lowbit as lb
from lowbit.analysis import taxonomy

X = jax.random.normal(jax.random.key(0), (32, 64))


@pytest.mark.parametrize(
  'entry', taxonomy.TAXONOMY, ids=lambda e: f'{e.axis}: {e.option}'
)
def test_every_entry_points_at_what_runs(entry):
  if entry.spec:
    is_random = 'stochastic' in entry.spec
    key = jax.random.key(1) if is_random else None
    y = lb.fake_quantize(X, entry.spec, key=key)
    assert bool(jnp.isfinite(y).all())
    assert not bool(jnp.array_equal(y, X))
    return
  module, name = entry.path.rsplit('.', 1)
  assert callable(getattr(importlib.import_module(module), name))


def test_options_are_told_apart():
  pairs = [(e.axis, e.option) for e in taxonomy.TAXONOMY]
  assert len(set(pairs)) == len(pairs)
