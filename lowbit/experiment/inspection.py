"""A model layer by layer: sizes, outliers, and what formats would do to it."""

import dataclasses
import math
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import rich.table
from flax import linen as nn

from lowbit import intercept, quantize
from lowbit.analysis import errors
from lowbit.analysis import outliers as outliers_lib
from lowbit.experiment import canvas, compare

SPECS = ('int8@channel', 'int4@g64', 'mxfp4', 'nvfp4')


@dataclasses.dataclass(frozen=True)
class Row:
  """One weight."""

  path: str
  shape: tuple[int, ...]
  dtype: str
  bits: int  # At rest, as it came.
  outliers: outliers_lib.Outliers
  sqnr_db: tuple[float, ...]  # One a spec.
  inputs: outliers_lib.Outliers | None  # Of the layer's input.


@dataclasses.dataclass(frozen=True)
class Inspection:
  """What `inspect` found: `table()`, `draw(path)`, `lines()`."""

  rows: tuple[Row, ...]
  specs: tuple[str, ...]

  def table(self) -> rich.table.Table:
    """One line a weight."""
    table = rich.table.Table(
      'weight', 'shape', 'dtype', 'bits', 'absmax/std', 'kurtosis', box=None
    )
    table.add_column('top channels')
    for spec in self.specs:
      table.add_column(f'{spec}\ndB', justify='right')
    has_inputs = any(r.inputs for r in self.rows)
    if has_inputs:
      table.add_column('input\nabsmax/std', justify='right')
      table.add_column('input channels')
    for r in self.rows:
      cells = [
        r.path,
        'x'.join(map(str, r.shape)),
        r.dtype,
        f'{r.bits / math.prod(r.shape):.4g}',
        f'{r.outliers.absmax_over_std:.3g}',
        f'{r.outliers.kurtosis:.3g}',
        _channels(r.outliers),
        *(f'{db:.1f}' for db in r.sqnr_db),
      ]
      if has_inputs and r.inputs:
        cells += [f'{r.inputs.absmax_over_std:.3g}', _channels(r.inputs)]
      table.add_row(*cells)
    return table

  def lines(self) -> list[dict]:
    """The rows as JSON objects."""
    named = lambda r: {
      **dataclasses.asdict(r),
      'sqnr_db': dict(zip(self.specs, r.sqnr_db)),
    }
    return [named(r) for r in self.rows]

  def draw(self, path=None):
    """Quantiles of |x| / std, layer by layer, of weights and of inputs.

    Args:
      path: PNG to write; None for none.

    Returns:
      The figure.
    """
    labels = [r.path for r in self.rows]
    panels = ['weights']
    if any(r.inputs for r in self.rows):
      panels.append('inputs')
    panels.append('formats')
    width = canvas.label_width(labels) + 3.2 * len(panels)
    height = 1.4 + canvas.ROW * len(labels)
    fig, axes = canvas.figure(width, height, mosaic=[panels], sharey=True)
    for i, level in enumerate(outliers_lib.LEVELS):
      name = 'absmax' if level == 1 else f'{100 * level:g} %'
      _dots(axes['weights'], [r.outliers for r in self.rows], i, name)
      if 'inputs' in axes:
        _dots(axes['inputs'], [r.inputs for r in self.rows], i, name)
    for i, spec in enumerate(self.specs):
      db = [r.sqnr_db[i] for r in self.rows]
      axes['formats'].plot(db, range(len(db)), 'o', ms=4, label=spec)
    for name, title in (
      ('weights', 'weights, |w| / std'),
      ('inputs', 'layer inputs, |x| / std'),
      ('formats', 'SQNR of the weight, dB'),
    ):
      if name in axes:
        axes[name].set_title(title, loc='left', fontsize=10)
        axes[name].grid(axis='x', alpha=0.3)
        axes[name].legend(fontsize=8, loc='lower right')
        if name != 'formats':
          axes[name].set_xscale('log')
    canvas.rows(axes['weights'], labels)
    return canvas.saved(fig, path)


def _dots(ax, found: Sequence, i: int, name: str) -> None:
  points = [(o.quantiles[i], y) for y, o in enumerate(found) if o and o.std]
  ax.plot(*zip(*points), 'o', ms=4, label=name)


def _channels(found: outliers_lib.Outliers) -> str:
  return ' '.join(f'{i}:{ratio:.1f}x' for i, ratio in found.top)


def inspect(
  weights: Mapping,
  specs: Sequence[str] = SPECS,
  axis: int | None = None,
  inputs: Mapping[str, outliers_lib.Outliers] | None = None,
) -> Inspection:
  """Looks at every matrix of a tree.

  Args:
    weights: Params, or name -> array; quantized leaves are decoded. Leaves of
      fewer than two axes are left out.
    specs: Formats to try, as for `lb.compare`.
    axis: Contraction axis of all; None as in `lb.compare`.
    inputs: Path -> outliers of the layer's input, from `layer_inputs`.

  Returns:
    An `Inspection`.

  Raises:
    ValueError: If there is no matrix, a weight is NaN or Inf, or a spec is
      unknown or does not fit.
  """
  specs = [quantize.Spec.parse(spec) for spec in specs]
  is_coded = lambda x: isinstance(x, quantize.QTensor | quantize.PackedQTensor)
  leaves = jax.tree_util.tree_leaves_with_path(weights, is_leaf=is_coded)
  rows = []
  for path, leaf in leaves:
    name = jax.tree_util.keystr(path, simple=True, separator='/')
    bits = quantize.bits(leaf)
    dtype = str(leaf.spec) if is_coded(leaf) else str(leaf.dtype)
    if isinstance(leaf, quantize.PackedQTensor):
      leaf = quantize.unpack(leaf)
    w = quantize.dequantize(leaf) if is_coded(leaf) else jnp.asarray(leaf)
    if w.ndim < 2 or not jnp.issubdtype(w.dtype, jnp.floating):
      continue
    along = compare.contraction_axis(name, axis)
    decibels = tuple(
      errors.measure({name: w}, spec, {name: along}).sqnr_db for spec in specs
    )
    found = outliers_lib.outliers(w, along)
    seen = (inputs or {}).get(name)
    rows.append(Row(name, w.shape, dtype, bits, found, decibels, seen))
  if not rows:
    raise ValueError(
      '`weights` holds no float matrix. Give params with kernels of at least '
      'two axes.'
    )
  return Inspection(tuple(rows), tuple(map(str, specs)))


def layer_inputs(
  model: nn.Module, params: Mapping, batch
) -> dict[str, outliers_lib.Outliers]:
  """Outliers of the input of every layer, from one eager pass.

  Args:
    model: A Linen model with unrolled layers.
    params: Its params.
    batch: Its input.

  Returns:
    Weight path -> `Outliers` over tokens and channels; look-ups are left out.

  Raises:
    ValueError: If layers run in a traced loop.
  """
  found = {}

  def handler(call):
    if call.found.input_axes is not None:
      if isinstance(call.x, jax.core.Tracer):
        raise ValueError(
          f'{call.path} lies in a traced loop (nn.scan, nn.jit, nn.remat), '
          'where its input cannot be looked at. Unroll the layers.'
        )
      rows = intercept.rows(call)
      rows = rows.reshape(-1, rows.shape[-1])
      found[call.path] = outliers_lib.outliers(rows)
    return intercept.serve(call)

  with intercept.handling(handler):
    model.apply({'params': params}, np.asarray(batch))
  return found
