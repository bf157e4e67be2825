"""lb.compare: the answer in one line, and its pictures."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lowbit as lb
from lowbit.analysis import errors
from lowbit.experiment import compare, error_plots, format_plots

W = jax.random.normal(jax.random.key(0), (32, 64))
LONG = 'e3m2_bias5_overflow@t32x32:(e4m3@tensor)-pow2mse'


def is_png(path):
  return path.read_bytes()[:4] == b'\x89PNG' and path.stat().st_size > 5000


def lines(found):
  return [line for line in str(found).splitlines() if line.strip()]


def test_one_line_has_the_answer_and_a_picture(tmp_path):
  path = tmp_path / 'x.png'
  found = lb.compare(W, ['mxfp4', 'nf4@g64'], path=path)
  assert is_png(path)
  head, _, first, second = lines(found)
  assert head.split() == [
    'spec',
    'SQNR',
    '(dB)',
    'max',
    'error',
    'to',
    'zero',
    'bits',
  ]
  for line, spec in ((first, 'mxfp4'), (second, 'nf4@g64')):
    error = W - lb.fake_quantize(W, spec)
    db = 10 * jnp.log10(jnp.mean(W**2) / jnp.mean(error**2))
    name, shown, largest, zeros, bits = line.split()
    assert name == spec
    assert float(shown) == pytest.approx(float(db), abs=0.006)
    assert float(largest) == pytest.approx(float(jnp.abs(error).max()), 1e-3)
    share = float(jnp.mean(lb.fake_quantize(W, spec) == 0))
    assert zeros == f'{share:.2%}'
    assert float(bits) == lb.bits_per_weight(lb.quantize(W, spec))


def test_trees_of_params():
  tree = {
    'dense': {'kernel': W, 'bias': W[0]},
    'table': {'embedding': 3 * W},
    'steps': jnp.arange(3),
  }
  found = lb.compare(tree, 'int4@g32')
  assert found.tensors == 2
  assert sorted(found.left_out) == ['dense/bias', 'steps']
  # A kernel is [in, out], everything else [out, in].
  want = errors.measure({'k': W, 'e': 3 * W}, 'int4@g32', {'k': -2, 'e': -1})
  assert found.rows[0].sqnr_db == want.sqnr_db
  assert 'dense/kernel' in str(found) or 'table/embedding' in str(found)
  across = lb.compare(tree, 'int4@g32', axis=-2).rows[0]
  assert across.sqnr_db != want.sqnr_db
  assert found.counts.sum() == 2 * W.size


@pytest.mark.parametrize(
  'w, specs, kind, rule',
  [
    (W, [], ValueError, '`specs` is empty'),
    (W, ['int4@q'], ValueError, 'Unknown block'),
    (W, ['int4!@g48'], ValueError, r"Tensor w of `w`: .*drop the '!'"),
    (jnp.arange(4), ['int4'], TypeError, '`w` must be a floating-point'),
    ({'a': W[0]}, ['int4'], ValueError, 'at least two axes; got a'),
    ({}, ['int4'], ValueError, 'at least two axes; got dict'),
    (None, ['int4'], ValueError, 'got NoneType'),
    (W.at[0, 0].set(jnp.nan), ['int4'], ValueError, 'w of `w` holds NaN'),
    (jnp.zeros((0, 4)), ['int4'], ValueError, 'Nothing in `w`'),
  ],
)
def test_bad_input_fails_before_any_work(w, specs, kind, rule):
  with pytest.raises(kind, match=rule):
    lb.compare(w, specs)


def test_an_axis_that_a_tensor_lacks():
  with pytest.raises(ValueError, match='Tensor a of `w`: `axis` 2 is out'):
    lb.compare({'a': W}, ['int4'], axis=2)


def test_pictures_of_a_few_and_of_many_specs(tmp_path):
  few = ['mxfp4', 'fp32', 'int4@g32~stochastic', 'bitmod4@g32', LONG]
  found = lb.compare(W, few, path=tmp_path / 'few.png')
  assert is_png(tmp_path / 'few.png')
  many = compare.Comparison(
    found.rows * 12, found.counts, found.limit, found.tensors, ()
  )
  figure = many.draw(tmp_path / 'many.png')
  assert is_png(tmp_path / 'many.png')
  legend = figure.legends[0]
  assert len(legend.get_texts()) == 60
  assert_inside(figure)
  assert 'fp32: exact' in legend.get_texts()[1].get_text()


def assert_inside(figure):
  """Panels, their labels and the legend lie on the page, and apart."""
  figure.draw_without_rendering()
  renderer = figure.canvas.get_renderer()
  page = figure.bbox
  panels = [ax.get_tightbbox(renderer) for ax in figure.axes]
  boxes = panels + [x.get_window_extent(renderer) for x in figure.legends]
  for box in boxes:
    assert box.x0 >= page.x0 - 1
    assert box.y0 >= page.y0 - 1
    assert box.x1 <= page.x1 + 1
    assert box.y1 <= page.y1 + 1
  for legend in boxes[len(panels) :]:
    assert not any(legend.overlaps(panel) for panel in panels)


def test_all_zero_weights(tmp_path):
  zeros = np.zeros((4, 64), np.float32)
  lb.compare(zeros, ['int4@g32'], path=tmp_path / 'zero.png')
  assert is_png(tmp_path / 'zero.png')


MIXED = [
  'int1',
  'int16',
  'uint4',
  'ulog4',
  'e8m0',
  'bf16',
  'posit16_1',
  'bitmod4',
  'afpq_nf4',
  'e3m2finite_bias5_overflow',
]


@pytest.mark.parametrize(
  'names', [['e2m1'], MIXED, [*MIXED, 'nf4', 'int4', 'dint4']]
)
def test_pictures_of_formats(names, tmp_path):
  for draw in (format_plots.number_lines, format_plots.accuracy_curves):
    figure = draw(names, tmp_path / 'x.png')
    assert is_png(tmp_path / 'x.png')
    assert_inside(figure)


def test_rows_of_names_do_not_overlap():
  names = MIXED * 4
  figure = format_plots.number_lines(names)
  figure.draw_without_rendering()
  renderer = figure.canvas.get_renderer()
  labels = figure.axes[0].get_yticklabels()
  assert [x.get_text() for x in labels] == names
  boxes = sorted(
    (x.get_window_extent(renderer) for x in labels), key=lambda b: b.y0
  )
  assert all(a.y1 < b.y0 for a, b in itertools.pairwise(boxes))


def test_no_curve_at_all():
  with pytest.raises(ValueError, match='two positive values'):
    format_plots.accuracy_curves(['int1', 'bitmod4'])


def test_dots_of_exact_and_long_specs(tmp_path):
  kinds = ['Gaussian', 'Laplace', 'Student-t(5)', 'outlier channels']
  table = {s: dict.fromkeys(kinds, 20.0) for s in ('mxfp4', LONG)}
  table['fp32'] = dict.fromkeys(kinds, float('inf'))
  figure = error_plots.sqnr_dots(table, tmp_path / 'x.png')
  assert is_png(tmp_path / 'x.png')
  assert_inside(figure)
  assert [t.get_text() for t in figure.axes[0].texts] == ['exact']
