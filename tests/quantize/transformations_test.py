"""Quantizers under jit, vmap, scan, remat and grad, and in several programs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lowbit as lb

X = jax.random.normal(jax.random.key(0), (3, 16, 40))
FAST = ('int4z@g16', 'nvfp4', 'bitmod4@g16')
SLOW = (
  'e4m3@channel',
  'nf4@g16:(int8@g256)',
  'afpq_e2m1@g16:bf16',
  'posit8_1@tensor',
  'int4@t8x8:mse',
)
SPECS = (*FAST, *(pytest.param(s, marks=pytest.mark.slow) for s in SLOW))


def equal(a, b):
  for u, v in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
    assert u.dtype == v.dtype
    np.testing.assert_array_equal(u, v)


@pytest.mark.parametrize('spec', SPECS)
def test_op_by_op_equals_one_program(spec):
  """What XLA fuses and rewrites has the bits of each operation by itself."""
  q = lb.quantize(X[0], spec)
  y = jax.jit(lambda x: lb.fake_quantize(x, spec))(X[0])
  with jax.disable_jit():
    alone = lb.quantize(X[0], spec)
    fake = lb.fake_quantize(X[0], spec)
  equal(alone, q)
  equal(fake, y)
  equal(lb.dequantize(q), y)


@pytest.mark.parametrize('spec', SPECS)
def test_stacked_layers(spec):
  """vmap over layers, scan over the stack, and the loop agree."""
  quantize = lambda x: lb.quantize(x, spec, axis=0)
  stack = jax.vmap(quantize)(X)
  each = [lb.dequantize(quantize(x)) for x in X]
  layers = jax.lax.scan(lambda c, q: (c, lb.dequantize(q)), None, stack)[1]
  equal(layers, jnp.stack(each))
  equal(jax.vmap(lb.dequantize)(stack), layers)
  equal(jax.tree.map(lambda a: a[1], stack), quantize(X[1]))


@pytest.mark.parametrize(
  'spec', ['nvfp4', pytest.param('int4z@g16', marks=pytest.mark.slow)]
)
def test_gradients_pass_every_transformation(spec):
  def loss(x):
    return jnp.sum(jnp.sin(lb.fake_quantize(x, spec)))

  want = jnp.cos(lb.fake_quantize(X[0], spec))
  for f in (loss, jax.jit(loss), jax.remat(loss)):
    np.testing.assert_allclose(jax.grad(f)(X[0]), want, rtol=1e-6)
  rows = jax.vmap(jax.grad(loss))(X)
  np.testing.assert_allclose(rows[0], want, rtol=1e-6)
  scanned = lambda x: jax.lax.scan(lambda c, v: (c + loss(v), None), 0.0, x)[0]
  np.testing.assert_allclose(jax.grad(scanned)(X), rows, rtol=1e-6)
  _, tangent = jax.jvp(loss, (X[0],), (jnp.ones_like(X[0]),))
  np.testing.assert_allclose(tangent, jnp.sum(want), rtol=1e-4)


def test_keys_under_vmap_and_scan():
  spec = 'e2m1@g16~stochastic'
  keys = jax.random.split(jax.random.key(1), 3)
  fake = lambda x, key: lb.fake_quantize(x, spec, key=key)
  want = jnp.stack([fake(x, k) for x, k in zip(X, keys)])
  equal(jax.vmap(fake)(X, keys), want)
  step = lambda c, xs: (c, fake(*xs))
  equal(jax.lax.scan(step, None, (X, keys))[1], want)


@pytest.mark.parametrize('dtype', ['bfloat16', 'float16', 'float32'])
def test_dtypes_come_back(dtype):
  x = X[0].astype(dtype)
  for spec in ('mxfp4', 'int4z@g16', 'bf16', 'fixed8_4'):
    y = lb.fake_quantize(x, spec)
    assert y.dtype == x.dtype
    equal(y, lb.fake_quantize(x.astype(jnp.float32), spec).astype(dtype))
    grad = jax.grad(lambda x, s=spec: lb.fake_quantize(x, s).sum())(x)
    assert grad.dtype == x.dtype
  q = lb.quantize(x, 'int4@g16')
  assert lb.dequantize(q, jnp.bfloat16).dtype == jnp.bfloat16
  assert q.scale.dtype == jnp.float32


def test_sweep_equals_every_static_format():
  """All names on a float grid, in one program, bit for bit."""
  names = [n for n in lb.formats.names() if n != 'fp32']
  names = [f'{n}@g16' for n in names if lb.formats.get(n).grid is not None]
  x = X[0].at[0, :16].set(0).at[1].multiply(1e-30).at[2].multiply(1e30)
  x = x.at[3, :16].set(jnp.arange(16.0))  # Ties.
  got = lb.quantize_grid(x, names)
  with jax.disable_jit():  # Faster than a program for each.
    want = [lb.fake_quantize(x, name) for name in names]
  for name, a, b in zip(names, got, want, strict=True):
    np.testing.assert_array_equal(a, b, err_msg=name)
