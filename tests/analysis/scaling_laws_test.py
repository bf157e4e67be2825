"""Laws: published predictions, fits of known coefficients, bad input."""

import numpy as np
import pytest

from lowbit.analysis import laws_fit, laws_loss, laws_penalty
from lowbit.analysis import laws_solve as solve

N = np.array([3e7, 6e7, 1.1e8, 2.2e8])
D = np.array([1.5e9, 3e9, 6e9, 1.3e10, 2.6e10])


def grid(**axes):
  """All combinations, one array [n] for each name."""
  mesh = np.meshgrid(*axes.values(), indexing='ij')
  return {k: m.ravel() for k, m in zip(axes, mesh)}


SIZES = dict(parameters=N, tokens=D)
# Law, variant, points, noise of log target, tolerance of exponents.
CASES = {
  'chinchilla': (laws_loss.CHINCHILLA, 'hoffmann', SIZES, 1e-4, 0.1),
  'precision': (
    laws_loss.precision(('w', 'a')),
    'integers',
    dict(parameters=N, tokens=D[::2], bits_w=[3, 5, 16], bits_a=[4, 6, 16]),
    1e-3,
    0.1,
  ),
  'capybara': (
    laws_loss.CAPYBARA,
    'paper',
    dict(
      parameters=[4.1e7, 8.5e7, 1.54e8, 6.79e8],
      tokens=[1e10, 3e10, 1e11],
      exponent=[1, 2, 4],
      mantissa=[1, 2, 3],
      block=[32, 512],
    ),
    1e-3,
    0.1,
  ),
  'post_training': (
    laws_penalty.POST_TRAINING,
    'gptq',
    {**SIZES, 'bits': [3, 4, 5, 6]},
    0.05,
    0.1,
  ),
  'qid': (
    laws_penalty.QID,
    'unified',
    {**SIZES, 'bits': [2, 3, 4]},
    0.05,
    0.1,
  ),
  'qat': (
    laws_penalty.QAT,
    'w4a4',
    {**SIZES, 'block': [32, 64, 128, 256]},
    0.02,
    0.15,
  ),
  'qat_fraction': (
    laws_penalty.QAT_FRACTION,
    'paper',
    dict(tokens_per_byte=np.geomspace(10, 5000, 12)),
    0.05,
    0.1,
  ),
}


_FOLLOWED = 4


def synthetic(name, seed=0):
  law, variant, axes, noise, _ = CASES[name]
  inputs = grid(**axes)
  target = law.predict(variant, **inputs)
  scatter = np.random.default_rng(seed).normal(size=target.shape)
  return law, inputs, target * np.exp(noise * scatter)


@pytest.mark.parametrize(
  'name',
  [
    pytest.param(n, marks=pytest.mark.slow if n == 'precision' else ())
    for n in CASES
  ],
)
def test_fits_recover_known_coefficients(name):
  law, inputs, target = synthetic(name)
  _, variant, _, noise, tolerance = CASES[name]
  found = laws_fit.fit(law, inputs, target, followed=_FOLLOWED)
  want = {**law.held, **law.published[variant]}
  exponents = [c for c in law.starts if c not in law.positive]
  for c in exponents or law.starts:
    assert found.coefficients[c] == pytest.approx(want[c], rel=tolerance), c
  assert np.std(found.residuals) < 1.2 * noise
  # What the coefficients say together is known much better than each.
  exact = law.predict(variant, **inputs)
  assert np.max(np.abs(np.log(found.predict(**inputs) / exact))) < 2 * noise


def test_kaplan_and_inference_fits():
  law, inputs = laws_loss.KAPLAN, grid(**SIZES)
  exact = law.predict('pythia', **inputs)
  found = laws_fit.fit(law, inputs, exact, followed=8)
  np.testing.assert_allclose(found.predict(**inputs), exact, rtol=1e-4)
  law = laws_penalty.inference((3, 4, 8))
  inputs = grid(total_bits=np.geomspace(1e5, 1e8, 6), bits=[3, 4, 8])
  known = dict(slope=0.05, k3=2.4, k4=2.0, k8=2.1)
  noise = np.random.default_rng(0).normal(size=18) * 1e-3
  target = law.predict(known, **inputs) * np.exp(noise)
  found = laws_fit.fit(law, inputs, target)
  for c, value in known.items():
    assert found.coefficients[c] == pytest.approx(value, rel=0.03)


def test_capacity_recovers_its_form():
  law = laws_penalty.CAPACITY
  error = np.array([0.36, 0.119, 0.0374, 0.0115, 0.0035, 1e-3, 8.8e-5])
  known = dict(L=1.0, F=0.35, C=1.1)
  found = laws_fit.fit(law, dict(error=error), law.predict(known, error=error))
  for c, value in known.items():
    assert found.coefficients[c] == pytest.approx(value, rel=1e-3)
  with pytest.raises(ValueError, match='no published'):
    law.predict(error=0.1)


@pytest.mark.slow
def test_the_interval_holds_the_truth_and_shrinks_with_runs():
  law, inputs, target = synthetic('qid')
  found = laws_fit.fit(law, inputs, target, followed=4)
  spans = laws_fit.bootstrap(found, inputs, target, count=30)
  known = law.published['unified']
  assert set(spans) == set(law.starts)
  for c in ('a', 'b', 'g'):
    low, high = spans[c]
    assert low < found.coefficients[c] < high
    assert abs(found.coefficients[c] - known[c]) < 1.5 * (high - low)
  half = {k: v[::4] for k, v in inputs.items()}
  few = laws_fit.fit(law, half, target[::4], followed=4)
  wide = laws_fit.bootstrap(few, half, target[::4], count=30)
  assert np.ptp(wide['a']) > 1.2 * np.ptp(spans['a'])


def test_held_out_runs_are_not_seen():
  law, inputs, target = synthetic('qid')
  out = inputs['parameters'] == N[-1]
  error = laws_fit.held_out_error(law, inputs, target, out, followed=2)
  assert error.shape == (out.sum(),)
  assert np.std(error) < 0.1
  target[out] *= 2  # What is held out cannot bend the fit.
  again = laws_fit.held_out_error(law, inputs, target, out, followed=2)
  np.testing.assert_allclose(again, error + np.log(2), atol=1e-3)


def test_one_outlier_does_not_bend_a_huber_fit():
  law, inputs, target = synthetic('qid')
  target[7] *= 30
  found = laws_fit.fit(law, inputs, target, followed=4)
  assert found.coefficients['g'] == pytest.approx(5.4967, rel=0.05)


# --- Published predictions, as in the papers' tables and texts.


def test_precision_law_of_the_paper():
  assert solve.best_bits() == pytest.approx(7.0, abs=0.05)
  f = laws_loss.capacity
  law = laws_loss.precision().published['integers']
  shares = {o: float(f(4.0, law[f'g_{o}'], law[f'n_{o}'])) for o in _OPERANDS}
  assert shares == pytest.approx(dict(w=0.696, a=0.331, kv=0.828), abs=2e-3)
  per_bit = solve.critical_tokens(1e9, 5.0) / solve.critical_tokens(1e9, 4.0)
  assert per_bit == pytest.approx(5.41, abs=0.01)
  for n, want in ((3e7, (0.586, 0.108, 0.020)), (2.2e8, (0.295, 0.054, 0.010))):
    got = laws_penalty.POST_TRAINING.predict(
      parameters=n, tokens=2.6e10, bits=[3, 4, 5]
    )
    np.testing.assert_allclose(got, want, atol=1e-3)


_OPERANDS = ('w', 'a', 'kv')


def test_critical_tokens_are_where_the_total_is_least():
  law, after = laws_loss.precision(), laws_penalty.POST_TRAINING
  d = np.geomspace(1e9, 1e14, 20001)
  bits = dict(bits_w=32, bits_a=32, bits_kv=32)
  total = law.predict(parameters=1e9, tokens=d, **bits)
  total = total + after.predict(parameters=1e9, tokens=d, bits=4)
  want = solve.critical_tokens(1e9, 4)
  assert d[np.argmin(total)] == pytest.approx(want, rel=2e-3)
  total = laws_loss.CAPYBARA.predict(
    parameters=1e9, tokens=d, exponent=2, mantissa=1, block=128
  )
  want = solve.critical_tokens_float(1e9, 2, 1, 128)
  assert d[np.argmin(total)] == pytest.approx(want, rel=2e-3)


@pytest.mark.parametrize(
  'fmt, trillions', [((8, 7), 1729.5), ((4, 3), 27.33), ((2, 1), 0.3928)]
)
def test_critical_data_of_float_training(fmt, trillions):
  got = solve.critical_tokens_float(1e9, *fmt, 128) / 1e12
  assert got == pytest.approx(trillions, rel=1e-3)


def test_best_float_layouts():
  want = 'E1M0 E1M1 E2M1 E2M2 E3M2 E3M3 E4M3 E4M4 E5M4 E5M5 E6M5 E6M6 E7M6 E7M7'
  want = [*want.split(), 'E8M7']
  layouts = [solve.layout_float(bits) for bits in range(2, 17)]
  assert [f'E{e}M{m}' for e, m in layouts] == want
  e, m = solve.split_float(8)
  assert e + m + 1 == pytest.approx(8)
  by_block = [
    laws_loss.CAPYBARA.predict(
      parameters=1e8, tokens=1e10, exponent=2, mantissa=1, block=b
    )
    for b in (1, 32, 512)
  ]
  ratio = (by_block[1] - by_block[0]) / (by_block[2] - by_block[0])
  assert ratio == pytest.approx(5 / 9)


def test_tokens_of_the_degradation_paper():
  two = [0.0011, 0.0026, 0.0071, 0.0151]  # Trillions, for a penalty of 0.2.
  n = np.array([1e9, 7e9, 7e10, 4.05e11])
  unified = solve.tokens_for_penalty(0.2, n, 2) / 1e12
  np.testing.assert_allclose(unified, two, rtol=0.1)
  # Its other columns follow from laws of their own, found from the table.
  three = solve.tokens_for_penalty(0.2, n, 3, '3 bits') / 1e12
  np.testing.assert_allclose(three, [0.1089, 0.3038, 1.0228, 2.5807], rtol=5e-3)
  four = solve.tokens_for_penalty(0.2, n, 4, '4 bits') / 1e12
  np.testing.assert_allclose(
    four, [1.4424, 4.5066, 17.3499, 48.4861], rtol=5e-3
  )
  four = solve.tokens_for_penalty(0.5, n, 4, '4 bits') / 1e12
  np.testing.assert_allclose(four, [5.84, 18.25, 70.27, 196.4], rtol=5e-3)


def test_group_size_law_of_the_paper():
  law = laws_penalty.QAT
  at = lambda v, n, d, g: float(law.predict(v, parameters=n, tokens=d, block=g))
  got = [at('w4a4', n, 1e11, g) for n in (7.4e7, 5.95e8) for g in (32, 256)]
  np.testing.assert_allclose(got, [0.0695, 0.1002, 0.0441, 0.0635], atol=1e-4)
  assert 1 - at('w4a4', 5.94e8, 1e11, 32) / at(
    'w4a4', 7.4e7, 1e11, 32
  ) == pytest.approx(0.366, abs=2e-3)
  for per, g, want in ((100, 32, 1.67), (1000, 32, 1.20), (1000, 256, 1.62)):
    ratios = [
      at('w16a4', n, per * n, g) / at('w4a16', n, per * n, g)
      for n in (7.4e7, 1.45e8, 2.97e8, 5.95e8)
    ]
    np.testing.assert_allclose(ratios, want, rtol=0.12)
  # A quantized model is worth a smaller one, which has the same loss.
  factor = solve.effective_parameters(1e8, 1e10, 128)
  base = laws_penalty.QAT_BASE
  small = laws_loss.CHINCHILLA.predict(
    base, parameters=1e8 * factor, tokens=1e10
  )
  whole = laws_loss.CHINCHILLA.predict(base, parameters=1e8, tokens=1e10)
  assert small - whole == pytest.approx(at('w4a4', 1e8, 1e10, 128), rel=1e-6)


def test_fraction_of_quantized_tokens():
  got = laws_penalty.QAT_FRACTION.predict(tokens_per_byte=[200, 20, 2000])
  np.testing.assert_allclose(got, [0.281, 0.106, 0.413], atol=1e-3)


def test_best_width_at_equal_bits():
  assert solve.bits_per_weight(4, 64) == 4.25
  assert solve.bits_per_weight(4, 1024) == pytest.approx(4.016, abs=1e-3)
  x = grid(n=np.geomspace(1e5, 1e8, 7), k=[3, 4, 8])
  total = x['n'] * x['k']
  loss = 5 * total**-0.05 + np.where(x['k'] == 3, 0.5, 0.0)
  loss += np.where(x['k'] == 8, 0.02, 0.0)
  shares = solve.best_width(x['k'], total, loss)
  assert shares[4.0] > 0.9
  with pytest.raises(ValueError, match='No two widths'):
    solve.best_width([3, 4], [1e3, 1e6], [1.0, 2.0])


@pytest.mark.parametrize(
  'call, hint',
  [
    (
      lambda: laws_fit.fit(
        laws_loss.CAPYBARA,
        dict(parameters=N, tokens=N, exponent=N, mantissa=N, block=N),
        np.ones(4),
      ),
      '8 coefficients to fit, and there are 4 points',
    ),
    (
      lambda: laws_fit.fit(
        laws_penalty.QAT_FRACTION, dict(tokens_per_byte=[2.0]), [np.nan]
      ),
      'positive and finite',
    ),
    (
      lambda: laws_fit.fit(
        laws_penalty.QAT_FRACTION,
        dict(tokens_per_byte=[2.0]),
        [0.1],
        held=dict(z=1),
      ),
      'names',
    ),
    (lambda: laws_loss.CHINCHILLA.predict(parameters=1e9), 'takes parameters'),
    (
      lambda: laws_loss.CHINCHILLA.predict(parameters=-1.0, tokens=1.0),
      'not negative',
    ),
    (
      lambda: laws_loss.CHINCHILLA.predict('mine', parameters=1.0, tokens=1.0),
      'besiroglu',
    ),
    (
      lambda: laws_loss.CHINCHILLA.predict(dict(E=1), parameters=1.0, tokens=1),
      'must be',
    ),
    (lambda: solve.layout_float(1), 'at least 2'),
    (lambda: solve.critical_tokens_float(1e9, 2, 1, 1), 'above 1'),
  ],
)
def test_bad_input(call, hint):
  with pytest.raises(ValueError, match=hint):
    call()
