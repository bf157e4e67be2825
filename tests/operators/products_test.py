"""Products that are drop-ins for those of JAX."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lowbit as lb

KEY = jax.random.key(0)
MATRIX = (((1,), (0,)), ((), ()))


def normal(seed, *shape):
  return jax.random.normal(jax.random.key(seed), shape)


def wrap(shape, q):
  return lb.dequantize(q).reshape(shape)


def test_floats_are_multiplied_as_jax_does():
  x, w = normal(0, 3, 4, 8), normal(1, 4, 8, 5)
  numbers = (((2,), (1,)), ((1,), (0,)))
  chex.assert_trees_all_equal(
    lb.dot_general(x, w, numbers), jax.lax.dot_general(x, w, numbers)
  )


@pytest.mark.parametrize('spec', ['int4@g32', 'mxfp4', 'int8@channel'])
@pytest.mark.parametrize('pack', [False, True])
def test_quantized_weights(spec, pack):
  x, w = normal(0, 6, 64), normal(1, 64, 16)
  q = lb.quantize(w, spec, axis=0)
  y = lb.dot_general(x, lb.pack(q) if pack else q, MATRIX)
  chex.assert_trees_all_close(y, x @ lb.dequantize(q), rtol=1e-5, atol=1e-4)


def test_the_other_axis_of_a_weight():
  x, w = normal(0, 6, 64), normal(1, 16, 64)
  q = lb.quantize(w, 'int4@g32')
  y = lb.dot_general(x, q, (((1,), (1,)), ((), ())))
  chex.assert_trees_all_close(y, x @ lb.dequantize(q).T, rtol=1e-5, atol=1e-5)


def test_the_first_axis_of_an_input():
  x, w = normal(0, 64, 6), normal(1, 64, 16)
  q = lb.pack(lb.quantize(w, 'int4@g32', axis=0))
  y = lb.dot_general(x, q, (((0,), (0,)), ((), ())))
  dense = lb.dequantize(lb.unpack(q))
  chex.assert_trees_all_close(y, x.T @ dense, rtol=1e-5, atol=1e-4)


def test_integers_are_summed_exactly():
  x, w = normal(0, 5, 512), normal(1, 512, 8)
  a = lb.quantize(x, 'int8@token')
  b = lb.quantize(w, 'int8@channel', axis=0)
  run = functools.partial(lb.dot_general, dimension_numbers=MATRIX)
  assert 'preferred_element_type=int32' in str(jax.make_jaxpr(run)(a, b))
  total = np.asarray(a.codes, np.int64) @ np.asarray(b.codes, np.int64)
  want = total * np.asarray(a.scale, np.float64) * np.asarray(b.scale)
  np.testing.assert_allclose(np.asarray(run(a, b)), want, rtol=1e-6)


@pytest.mark.parametrize(
  ('a', 'b'),
  [('int8@g32', 'int8@channel'), ('e4m3@token', 'mxfp4'), ('nf4@g32', 'int4')],
)
def test_other_pairs_are_decoded(a, b):
  b = b if '@' in b or b == 'mxfp4' else f'{b}@channel'
  x, w = lb.quantize(normal(0, 5, 64), a), lb.quantize(normal(1, 64, 8), b, 0)
  want = lb.dequantize(x) @ lb.dequantize(w)
  chex.assert_trees_all_close(
    lb.dot_general(x, w, MATRIX), want, rtol=1e-5, atol=1e-5
  )


def test_specs_quantize_along_what_is_summed_and_pass_gradients():
  x, w = normal(0, 6, 64), normal(1, 64, 16)
  run = lambda x, w: lb.dot_general(
    x, w, MATRIX, lhs_spec='int8@token', rhs_spec='int4@g32'
  )
  fx = lb.fake_quantize(x, 'int8@token')
  fw = lb.fake_quantize(w, 'int4@g32', axis=0)
  chex.assert_trees_all_equal(run(x, w), fx @ fw)
  dx, dw = jax.grad(lambda x, w: jnp.sum(run(x, w)), (0, 1))(x, w)
  ones = jnp.ones((6, 16))
  chex.assert_trees_all_close(dx, ones @ fw.T, rtol=1e-5)
  chex.assert_trees_all_close(dw, fx.T @ ones, rtol=1e-5)


def test_stochastic_operands_draw_their_own_noise():
  x = normal(0, 64, 64)
  spec = 'int4@channel~stochastic'
  both = lb.dot_general(
    x, x, MATRIX, lhs_spec=spec, rhs_spec=spec, key=jax.random.key(1)
  )
  keys = jax.random.split(jax.random.key(1))
  a = lb.fake_quantize(x, spec, key=keys[0])
  b = lb.fake_quantize(x, spec, axis=0, key=keys[1])
  chex.assert_trees_all_equal(both, a @ b)


@pytest.mark.parametrize(
  'text',
  [
    '...i,io->...o',
    'bti,io->bto',
    'bti,oi->otb',
    'bhi,hio->bho',
    'bti,bsi->bts',
  ],
)
def test_einsum_is_that_of_numpy(text):
  sizes = dict(zip('btiosh', (2, 3, 8, 5, 4, 3)))
  shape = lambda t: [sizes[c] for c in t.replace('...', 'bt')]
  left, right = text.split('->')[0].split(',')
  x, w = normal(0, *shape(left)), normal(1, *shape(right))
  want = jnp.einsum(text, x, w)
  chex.assert_trees_all_close(lb.einsum(text, x, w), want, rtol=1e-5)
  axis = right.index('i')
  q = lb.quantize(w, 'int8@channel', axis=axis)
  chex.assert_trees_all_close(
    lb.einsum(text, x, q),
    jnp.einsum(text, x, lb.dequantize(q)),
    rtol=1e-4,
    atol=1e-5,
  )


def test_convolutions():
  x, w = normal(0, 2, 8, 8, 4), normal(1, 3, 3, 4, 6)
  conv = functools.partial(
    jax.lax.conv_general_dilated,
    window_strides=(1, 1),
    padding='SAME',
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
  )
  run = functools.partial(lb.conv, **conv.keywords)
  chex.assert_trees_all_equal(run(x, w), conv(x, w))
  axes = (0, 1, 2)
  q = lb.quantize(w, 'int4@channel', axis=axes)
  chex.assert_trees_all_equal(run(x, q), conv(x, lb.dequantize(q)))
  chex.assert_trees_all_equal(
    run(x, w, lhs_spec='int8@token', rhs_spec='int4@channel'),
    conv(
      lb.fake_quantize(x, 'int8@token'),
      lb.fake_quantize(w, 'int4@channel', axis=axes),
    ),
  )


def test_the_dtype_is_that_of_the_floats_or_the_one_asked_for():
  x = normal(0, 3, 64).astype(jnp.bfloat16)
  q = lb.pack(lb.quantize(normal(1, 64, 8), 'int4@g32', axis=0))
  assert lb.dot_general(x, q, MATRIX).dtype == jnp.bfloat16
  y = lb.dot_general(x, q, MATRIX, preferred_element_type=jnp.float32)
  assert y.dtype == jnp.float32


def test_bad_input():
  x, w = normal(0, 3, 64), normal(1, 64, 8)
  q = lb.quantize(w, 'int4@g32', axis=0)
  with pytest.raises(ValueError, match='quantized already'):
    lb.dot_general(x, q, MATRIX, rhs_spec='int4@g32')
  with pytest.raises(TypeError, match='`lhs`'):
    lb.dot_general(jnp.arange(64)[None], w, MATRIX)
  with pytest.raises(ValueError, match='neither spec rounds'):
    lb.dot_general(x, w, MATRIX, rhs_spec='int4@g32', key=KEY)
  with pytest.raises(ValueError, match='key'):
    lb.dot_general(x, w, MATRIX, rhs_spec='int4@g32~stochastic')
  with pytest.raises(ValueError, match='must be a product'):
    lb.einsum('bi,io->b', x, w)
  with pytest.raises(ValueError, match='must be a product'):
    lb.einsum('ii,io->io', x, w)
  with pytest.raises(ValueError, match='two operands'):
    lb.einsum('bi,io', x, w)
  with pytest.raises(ValueError, match='operand of 2 axes'):
    lb.einsum('bti,io->bto', x, w)
