"""Formats with side data, real zero points, and the anchors of their papers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lowbit as lb

GAUSS = jax.random.normal(jax.random.key(0), (512, 2048))
LAPLACE = jax.random.laplace(jax.random.key(1), (512, 2048))
STUDENT = jax.random.t(jax.random.key(2), 5.0, (512, 2048))


def snr_db(x, spec):
  error = x - lb.fake_quantize(x, spec)
  return float(10 * jnp.log10(jnp.mean(x**2) / jnp.mean(error**2)))


# (spec, Gaussian, Laplace, Student-t(5)) in dB, groups of 128, as computed
# independently of lowbit; +-0.1.
ANCHORS = [
  ('bitmod3@g128', 14.20, 12.99, 12.65),
  ('bitmod4@g128', 20.19, 19.45, 19.37),
  ('afpq_e2m1@g128', 19.52, 18.99, 19.00),
  ('afpq_nf4@g128', 20.72, 19.69, 19.61),
  ('afpq_e2m0@g128', 12.90, 11.55, 11.32),
  ('e2m0@g128', 12.44, 10.65, 10.16),
]


@pytest.mark.parametrize('spec, gauss, laplace, student', ANCHORS)
def test_snr_is_that_of_the_papers(spec, gauss, laplace, student):
  got = [snr_db(x, spec) for x in (GAUSS, LAPLACE, STUDENT)]
  np.testing.assert_allclose(got, (gauss, laplace, student), atol=0.12)


def test_block_floating_point_is_the_written_rule():
  x = GAUSS[:8, :64].at[0, 0].set(4.0).at[1].set(0.0)
  for width, want in ((4, 18.64), (6, 30.73), (8, 42.78)):
    blocks = np.asarray(x, np.float64).reshape(8, 4, 16)
    largest = np.abs(blocks).max(-1, keepdims=True)
    e = np.ceil(np.log2(np.where(largest > 0, largest, 1)))
    m = np.round(np.abs(blocks) / 2.0**e * 2 ** (width - 1))
    m = np.minimum(m, 2 ** (width - 1) - 1)
    y = np.sign(blocks) * 2.0**e * m / 2 ** (width - 1)
    got = lb.fake_quantize(x, f'bfp{width}')
    np.testing.assert_array_equal(np.asarray(got), y.reshape(8, 64))
    np.testing.assert_allclose(snr_db(GAUSS, f'bfp{width}'), want, atol=0.1)


@pytest.mark.parametrize(
  'spec',
  [
    'bitmod4@g32',
    'afpq_nf4@g32',
    'afpq_e2m1@g32:bf16',
    'nf4z@g32:density',
    'e2m1z@channel',
    'nf4z@g32:mse',
    'e2m1@g32:(halving4@channel)',
  ],
)
def test_names_packing_transposes_and_vmap(spec):
  parsed = lb.Spec.parse(spec)
  assert lb.Spec.parse(str(parsed)) == parsed
  x = GAUSS[:40, :80]  # A ragged tail.
  q = lb.quantize(x, spec)
  want = np.asarray(lb.dequantize(q))
  packed = lb.pack(q)
  np.testing.assert_array_equal(lb.dequantize(lb.unpack(packed)), want)
  assert lb.bits(packed) == lb.bits(q)
  np.testing.assert_array_equal(lb.dequantize(q.T), want.T)
  stacked = jax.vmap(lambda x: lb.quantize(x, spec))(jnp.stack([x, 2 * x]))
  np.testing.assert_array_equal(lb.dequantize(stacked)[0], want)
  again = lb.quantize.quantize_with(x, q)
  np.testing.assert_array_equal(again.codes, q.codes)


@pytest.mark.parametrize('spec', ['bitmod3@g32', 'afpq_e2m1@g32', 'nf4z@g32'])
@pytest.mark.parametrize('bad', [jnp.nan, jnp.inf, -jnp.inf])
def test_nan_and_inf_spread_over_their_block_only(spec, bad):
  y = lb.fake_quantize(GAUSS[:4, :64].at[0, 0].set(bad), spec)
  assert bool(jnp.isnan(y[0, :32]).all())
  assert bool(jnp.isfinite(y[1:]).all())
  zeros = lb.fake_quantize(jnp.zeros((4, 64)), spec)
  np.testing.assert_allclose(zeros, 0.0, atol=1e-6)


def test_affine_dint_is_the_best_zero_point_with_halves():
  x = np.array(GAUSS[:6, :64], np.float64) + 0.8
  q = lb.quantize(jnp.asarray(x, jnp.float32), 'adint4@g32')
  y = np.asarray(lb.dequantize(q)).reshape(6, 2, 32)
  blocks = x.reshape(6, 2, 32)
  least = np.full((6, 2), np.inf)
  for z in range(1, 15):
    values = np.sort([-0.5, 0.5, *(q - z for q in range(1, 15))])
    step = np.abs(blocks).max(-1, keepdims=True) / np.abs(values).max()
    best = np.abs((blocks / step)[..., None] - values).min(-1) * step
    least = np.minimum(least, (best**2).sum(-1))
  np.testing.assert_allclose(((y - blocks) ** 2).sum(-1), least, rtol=1e-5)
  # Halves are kept beside the true zero, and skewed blocks gain on dint4.
  error = lambda spec: float(jnp.sum((x - lb.fake_quantize(q_in, spec)) ** 2))
  q_in = jnp.asarray(x, jnp.float32)
  assert error('adint4@g32') < 0.8 * error('dint4@g32')
  assert lb.bits(q) == 8 * (6 * 32 + 6) + 32 * 12  # 4-bit zeros, packed.
  with pytest.raises(ValueError, match='adint4'):
    lb.Spec.parse('dint4z@g32')


def test_two_sides_meet_both_ends():
  x = jnp.asarray([[-0.5, -0.1, 0.0, 0.3, 6.0, 12.0, 3.0, 1.5]])
  q = lb.quantize(x, 'afpq_e2m1@g8')
  np.testing.assert_allclose((q.scale, q.side), ([[2.0]], [[0.5 / 6]]), 1e-6)
  y = lb.dequantize(q)
  np.testing.assert_allclose(y[0, [0, 2, 5]], [-0.5, 0.0, 12.0], rtol=1e-6)
  one_sided = lb.fake_quantize(jnp.abs(x), 'afpq_e2m1@g8')
  np.testing.assert_array_equal(
    one_sided, lb.fake_quantize(jnp.abs(x), 'e2m1@g8')
  )


def test_every_member_of_a_choice_is_used():
  q = lb.quantize(GAUSS, 'bitmod4@g128')
  share = jnp.bincount(q.side.reshape(-1), length=4) / q.side.size
  assert float(share.min()) > 0.1
  # +16 and -16; a group that rounds nothing to 10 takes +10, the first.
  np.testing.assert_allclose(share[2], share[3], atol=0.03)


@pytest.mark.parametrize(
  'spec, message',
  [
    ('bitmod4z@g32', 'without side data'),
    ('nf4@g32:density', "write 'z'"),
    ('uint4@g32', 'int4z'),
    ('nf4z@g32:e8m0-floor', 'rules absmax, mse'),
  ],
)
def test_bad_specs(spec, message):
  with pytest.raises(ValueError, match=message):
    lb.Spec.parse(spec)


def test_what_side_data_does_not_go_with():
  with pytest.raises(ValueError, match='choose their values'):
    lb.solvers.gptq(GAUSS[:8, :32], jnp.eye(32), 'bitmod4@g32')
  with pytest.raises(ValueError, match='one scale'):
    lb.fake_quantize(
      GAUSS[:8, :32], 'bitmod4@g32', estimator=lb.quantize.clipped
    )
