"""A model layer by layer."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

import lowbit as lb
from lowbit.analysis import outliers
from lowbit.experiment import inspection
from lowbit.models import decoder


def test_statistics_agree_with_scipy_and_find_the_outlier():
  x = np.random.default_rng(0).standard_t(4, size=(64, 32)).astype(np.float32)
  x[:, 5] *= 20
  found = outliers.outliers(jnp.asarray(x))
  rms = np.sqrt(np.mean(x.astype(np.float64) ** 2))
  moments = np.mean(x.astype(np.float64) ** 4) / rms**4
  np.testing.assert_allclose(found.std, rms, rtol=1e-5)
  np.testing.assert_allclose(found.kurtosis, moments, rtol=1e-4)
  centred = x - x.mean()
  want = scipy.stats.kurtosis(centred, axis=None, fisher=False)
  np.testing.assert_allclose(found.kurtosis, want, rtol=0.05)
  np.testing.assert_allclose(found.absmax_over_std, abs(x).max() / rms, 1e-5)
  channel, ratio = found.top[0]
  assert channel == 5
  assert ratio > 5
  by_row = outliers.outliers(jnp.asarray(x.T), axis=0)
  np.testing.assert_allclose(by_row.top, found.top, rtol=1e-5)


def test_zeros_have_no_outliers_and_nan_is_refused():
  assert outliers.outliers(jnp.zeros((3, 4))).absmax_over_std == 0
  with pytest.raises(ValueError, match='no NaN'):
    outliers.outliers(jnp.full((2, 2), jnp.nan))
  with pytest.raises(ValueError, match='at least one number'):
    outliers.outliers(jnp.zeros((0, 2)))


@pytest.fixture(scope='module')
def found():
  sizes = decoder.DecoderConfig(
    width=64, layers=1, heads=2, kv_heads=1, head_dim=32, hidden=64
  )
  model, tokens = decoder.Decoder(sizes), jnp.arange(64).reshape(2, 32)
  params = model.init(jax.random.key(0), tokens)['params']
  inputs = inspection.layer_inputs(model, params, tokens)
  quantized = dict(params)
  quantized['head'] = {
    'kernel': lb.pack(lb.quantize(params['head']['kernel'], 'int8@channel', -2))
  }
  specs = ['int8@channel', 'int4@g32']
  return inspection.inspect(quantized, specs, inputs=inputs)


def test_every_matrix_has_a_row_with_its_own_numbers(found):
  rows = {r.path: r for r in found.rows}
  assert len(rows) == 9
  head = rows['head/kernel']
  assert head.dtype == 'int8@channel'
  assert head.bits == 64 * 256 * 8 + 256 * 32
  assert head.sqnr_db[0] > 60  # On the grid already.
  up = rows['layers_0/mlp/up/kernel']
  assert up.dtype == 'float32'
  assert up.sqnr_db[0] > up.sqnr_db[1] + 15
  assert up.inputs.absmax_over_std > 1
  assert rows['embed/embedding'].inputs is None


def test_it_can_be_looked_at(found, tmp_path):
  path = tmp_path / 'inspect.png'
  found.draw(path)
  assert path.stat().st_size > 10_000
  assert found.table().row_count == 9
  assert set(found.lines()[0]['sqnr_db']) == {'int8@channel', 'int4@g32'}


def test_bad_input():
  with pytest.raises(ValueError, match='no float matrix'):
    inspection.inspect({'scale': jnp.ones(4)})
  with pytest.raises(ValueError, match='int9x'):
    inspection.inspect({'w': jnp.ones((4, 4))}, ['int9x'])
  scanned = decoder.Decoder(
    decoder.DecoderConfig(
      width=64,
      layers=2,
      heads=2,
      kv_heads=1,
      head_dim=32,
      hidden=64,
      scan_layers=True,
    )
  )
  tokens = jnp.zeros((1, 8), jnp.int32)
  params = scanned.init(jax.random.key(0), tokens)['params']
  with pytest.raises(ValueError, match='Unroll the layers'):
    inspection.layer_inputs(scanned, params, tokens)
