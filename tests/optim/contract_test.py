"""What optax asks of a transformation, of all of them."""

import functools
import os
import pathlib
import subprocess
import sys

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lowbit import optim
from tests.optim import cases

NAMES = list(cases.CASES)


def avals(tree):
  return jax.tree.map(lambda x: (x.shape, str(x.dtype)), tree)


@functools.cache
def run(name):
  """Three jitted steps: (parameters before, after each), states, traces."""
  tx = cases.CASES[name](1e-2)
  p = cases.params(name)
  traces = []

  @jax.jit
  def step(g, state, p):
    traces.append(1)
    u, state = tx.update(g, state, p)
    return u, optim.apply_updates(p, u), state

  weights, states, updates = [p], [jax.jit(tx.init)(p)], []
  for i in range(3):
    g = cases.gradients(p, i + 1)
    u, p, state = step(g, states[-1], weights[-1])
    weights.append(p)
    states.append(state)
    updates.append(u)
  return weights, states, updates, len(traces)


@pytest.mark.parametrize('name', NAMES)
def test_steps_under_jit_without_a_second_trace(name):
  weights, states, updates, traces = run(name)
  assert traces == 1
  for state, u in zip(states, updates):
    assert jax.tree.structure(u) == jax.tree.structure(weights[0])
    assert avals(state) == avals(states[0])
    assert jax.tree.structure(state) == jax.tree.structure(states[0])
    chex.assert_tree_all_finite(u)
  chex.assert_trees_all_equal_shapes_and_dtypes(weights[0], weights[-1])
  assert (weights[0]['w'] != weights[-1]['w']).any()


@pytest.mark.parametrize('name', NAMES)
def test_traced_hyperparameters_in_a_multi_transform(name):
  make = cases.CASES[name]
  low = optax.inject_hyperparams(
    lambda learning_rate: make(learning_rate), hyperparam_dtype=jnp.float32
  )(learning_rate=1e-2)
  labels = {'w': 'low', 'stack': 'low', 'b': 'not', 's': 'not'}
  tx = optax.multi_transform({'low': low, 'not': optax.set_to_zero()}, labels)
  weights = run(name)[0]
  got, _ = cases.train(tx, weights[0], steps=1)
  chex.assert_trees_all_equal(got['b'], weights[0]['b'])
  if 'noisy' in name or 'weights' in name or 'gradients' in name:
    assert (got['w'] != weights[0]['w']).any()  # Other keys, other noise.
  else:
    tight = {'rtol': 1e-5, 'atol': 1e-6}
    widen = lambda x: np.asarray(x, np.float32)
    np.testing.assert_allclose(widen(got['w']), widen(weights[1]['w']), **tight)


def test_moments_stay_static_when_all_numbers_are_injected():
  p = cases.params('adamw8bit')
  make = optax.inject_hyperparams(optim.adamw8bit, static_args='mask')
  tx = make(learning_rate=1e-2, moments=cases.EIGHT)
  got, state = cases.train(tx, p)
  want, _ = cases.train(optim.adamw8bit(1e-2, moments=cases.EIGHT), p)
  chex.assert_trees_all_close(got, want, rtol=1e-5, atol=1e-6)
  names = {'learning_rate', 'b1', 'b2', 'eps', 'weight_decay'}
  assert set(state.hyperparams) == names


@pytest.mark.parametrize('name', ['adamw8bit', 'adamw4bit'])
def test_vmap_over_stacked_layers_is_a_loop_over_layers(name):
  tx = cases.CASES[name](1e-2)
  layers = [{'w': cases.params(name, s)['w']} for s in range(2)]
  stacked = jax.tree.map(lambda *a: jnp.stack(a), *layers)
  state = jax.jit(jax.vmap(tx.init))(stacked)
  g = [cases.gradients(p, 7) for p in layers]
  stacked_g = jax.tree.map(lambda *a: jnp.stack(a), *g)
  step = jax.jit(jax.vmap(tx.update))
  for _ in range(2):
    u, state = step(stacked_g, state, stacked)
  one, init = jax.jit(tx.update), jax.jit(tx.init)
  for i, p in enumerate(layers):
    s = init(p)
    for _ in range(2):
      want, s = one(g[i], s, p)
    got = jax.tree.map(lambda a, i=i: a[i], u)
    chex.assert_trees_all_close(got, want, rtol=2e-3, atol=1e-5)
  whole = jax.tree.map(lambda a: a[0], state)
  assert jax.tree.structure(whole) == jax.tree.structure(s)


SHARDED = """
import jax, numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
from tests.optim import cases
mesh = Mesh(np.asarray(jax.devices()), ('data',))
def place(a):
  cut = a.ndim and a.shape[0] % 2 == 0
  return jax.device_put(a, NamedSharding(mesh, P('data') if cut else P()))
assert len(jax.devices()) == 2
for name in ('adamw8bit', 'adamw4bit', 'collage_plus'):
  tx = cases.CASES[name](1e-2)
  p = {k: cases.params(name)[k] for k in 'wb'}
  g = cases.gradients(p)
  step, first = jax.jit(tx.update), jax.jit(tx.init)(p)
  plain, _ = step(g, first, p)
  state = jax.tree.map(place, first)
  got, state = step(*jax.tree.map(place, (g, state, p)))
  for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(plain)):
    np.testing.assert_allclose(
        np.asarray(a, np.float32), np.asarray(b, np.float32),
        rtol=1e-3, atol=1e-6)
  spread = [len(x.sharding.device_set) for x in jax.tree.leaves(state)]
  assert max(spread) == 2, name
print('same')
"""


def test_state_sharded_over_two_devices():
  root = pathlib.Path(__file__).resolve().parents[2]
  flags = '--xla_force_host_platform_device_count=2'
  env = {**os.environ, 'XLA_FLAGS': flags, 'JAX_PLATFORMS': 'cpu'}
  env['PYTHONPATH'] = str(root)
  done = subprocess.run(
    [sys.executable, '-c', SHARDED],
    capture_output=True,
    text=True,
    env=env,
    cwd=root,
    check=False,
  )
  assert done.stdout.strip() == 'same', done.stderr[-2000:]
