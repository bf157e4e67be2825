"""Errors of a spec, against sums written out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lowbit as lb
from lowbit.analysis import errors

KEYS = jax.random.split(jax.random.key(0), 2)
TENSORS = {
  'a': jax.random.normal(KEYS[0], (16, 64)),
  'b/kernel': 3 * jax.random.laplace(KEYS[1], (64, 32)),
}
AXES = {'a': -1, 'b/kernel': -2}


def written_out(spec):
  x, y = [], []
  for name, w in TENSORS.items():
    x.append(np.ravel(w))
    y.append(np.ravel(lb.fake_quantize(w, spec, axis=AXES[name])))
  return np.concatenate(x).astype(float), np.concatenate(y).astype(float)


@pytest.mark.parametrize(
  'spec', ['int4@g32', 'mxfp4', 'bitmod4@g32', 'e4m3@channel']
)
def test_sums_are_those_of_all_elements(spec):
  row = errors.measure(TENSORS, spec, AXES)
  x, y = written_out(spec)
  db = lambda x, y: 10 * np.log10(np.sum(x**2) / np.sum((x - y) ** 2))
  assert row.spec == spec
  assert row.sqnr_db == pytest.approx(db(x, y), abs=1e-6)
  assert row.max_error == pytest.approx(np.abs(x - y).max(), rel=1e-6)
  assert row.zeros == pytest.approx(np.mean(y == 0))
  alone = {
    name: errors.measure({name: w}, spec, AXES).sqnr_db
    for name, w in TENSORS.items()
  }
  assert row.worst == min(alone, key=alone.get)
  assert row.worst_db == pytest.approx(min(alone.values()))
  quantized = {n: lb.quantize(w, spec, AXES[n]) for n, w in TENSORS.items()}
  assert row.bits_per_weight == lb.bits_per_weight(quantized)


def test_the_profile_adds_up_to_the_noise():
  row = errors.measure(TENSORS, 'int4@g32', AXES)
  counts = errors.histogram(TENSORS, errors.magnitude(TENSORS))
  x, y = written_out('int4@g32')
  assert counts.sum() == x.size
  noise = np.nansum(np.square(row.profile) * counts)
  assert noise == pytest.approx(np.sum((x - y) ** 2))
  assert np.isnan(np.asarray(row.profile)[counts == 0]).all()


def test_exact_zero_and_nan():
  exact = errors.measure(TENSORS, 'fp32', AXES)
  assert (exact.sqnr_db, exact.max_error) == (np.inf, 0)
  zeros = errors.measure({'z': jnp.zeros((4, 32))}, 'int4@g32')
  assert (zeros.sqnr_db, zeros.zeros) == (np.inf, 0)
  # A scale that overflows its format: the worst tensor, and NaN.
  tensors = {'fine': jnp.ones((1, 32)), 'huge': jnp.full((1, 32), 1e20)}
  bad = errors.measure(tensors, 'int4@g32:e4m3_overflow')
  assert bad.worst == 'huge'
  assert np.isnan([bad.sqnr_db, bad.max_error, bad.worst_db]).all()
  with pytest.raises(ValueError, match='no elements'):
    errors.measure({'e': jnp.zeros((0, 4))}, 'int4')


def test_stochastic_rounding_has_its_keys():
  once = errors.measure(TENSORS, 'int4@g32~stochastic', AXES)
  again = errors.measure(TENSORS, 'int4@g32~stochastic', AXES)
  np.testing.assert_equal(once.profile, again.profile)
  nearest = errors.measure(TENSORS, 'int4@g32', AXES)
  # Twice the squared error of nearest rounding, uniform within a step.
  assert 2 < nearest.sqnr_db - once.sqnr_db < 4


def test_distributions_are_what_they_are_called():
  data = errors.distributions()
  kurtosis = lambda x: float(jnp.mean(x**4) / jnp.mean(x**2) ** 2)
  assert kurtosis(data['Gaussian']) == pytest.approx(3, abs=0.1)
  assert kurtosis(data['Laplace']) == pytest.approx(6, abs=0.4)
  assert kurtosis(data['Student-t(5)']) > 6
  rms = jnp.sqrt(jnp.mean(data['outlier channels'] ** 2, axis=0))
  assert 1 <= int((rms > 30).sum()) <= 30
  assert int(((rms > 2) & (rms < 30)).sum()) == 0


def test_sqnr_of_int8_is_the_formula():
  # Uniform noise of variance s^2 / 12, s = absmax / 127 over the tensor.
  table = errors.sqnr_table(['int8@tensor'])
  x = errors.distributions()['Gaussian']
  step = float(jnp.max(jnp.abs(x))) / 127
  want = 10 * np.log10(float(jnp.mean(x**2)) / (step**2 / 12))
  assert table['int8@tensor']['Gaussian'] == pytest.approx(want, abs=0.05)
