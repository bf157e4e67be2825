"""What would format X do to my weights? One line: a table, and a picture.

import lowbit as lb
print(lb.compare(w, ['mxfp4', 'nf4@g64', 'int4@g64'], path='x.png'))
"""

import dataclasses
import io
import os
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from rich import console as rich_console
from rich import table as rich_table

from lowbit import quantize
from lowbit.analysis import errors
from lowbit.experiment import error_plots, report


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Comparison:
  """One `errors.Errors` a spec; prints as a table."""

  rows: tuple[errors.Errors, ...]
  counts: np.ndarray  # Weights in each of `errors.BINS` bins, int64.
  limit: float  # The bins cover [-limit, limit].
  tensors: int  # How many were quantized ...
  left_out: tuple[str, ...]  # ... and the names of those that were not.

  def table(self) -> rich_table.Table:
    """SQNR, largest error, new zeros, bits per weight: one line a spec."""
    heads = ['SQNR (dB)', 'max error', 'to zero', 'bits']
    heads += ['worst (dB)'] * (self.tensors > 1)
    out = report.empty_table('spec', *heads)
    if self.tensors > 1:
      out.add_column('in', overflow='fold')
    for row in self.rows:
      cells = [
        row.spec,
        f'{row.sqnr_db:.2f}',
        f'{row.max_error:.4g}',
        f'{row.zeros:.2%}',
        f'{row.bits_per_weight:.3f}',
      ]
      worst = [f'{row.worst_db:.2f}', row.worst]
      out.add_row(*cells, *(worst if self.tensors > 1 else []))
    return out

  def draw(self, path: str | os.PathLike | None = None):
    """Draws the weights, the error by value, and the bits it costs.

    Args:
      path: PNG to write; None for none.

    Returns:
      The matplotlib figure.
    """
    return error_plots.weight_errors(self.rows, self.counts, self.limit, path)

  def __repr__(self) -> str:
    console = rich_console.Console(
      file=io.StringIO(), width=160, force_terminal=False, force_jupyter=False
    )
    console.print(self.table())
    return console.file.getvalue().strip('\n')


def compare(
  w,
  specs: Sequence[quantize.Spec | str],
  axis: int | None = None,
  path: str | os.PathLike | None = None,
) -> Comparison:
  """Quantizes weights by each spec, and tells the errors.

  Args:
    w: A float array, or a tree of them, such as a model's params. Of a tree,
      the leaves of at least two axes are taken: norms and biases are left out.
    specs: How; names or Specs.
    axis: The contraction axis of all tensors. None: -2 for Flax's `kernel`
      leaves [.., in, out], and -1 for all others, [out, in].
    path: PNG to write; needs matplotlib. None for no picture.

  Returns:
    A `Comparison`, which prints as a table; its `draw` makes the picture.

  Raises:
    TypeError: If `w` is a single array, and not of floats.
    ValueError: If there is nothing to quantize, a weight is NaN or Inf, or a
      spec is unknown or does not fit: before any work.
  """
  specs = [specs] if isinstance(specs, str | quantize.Spec) else list(specs)
  specs = [quantize.Spec.parse(spec) for spec in specs]
  if not specs:
    raise ValueError('`specs` is empty. Give at least one, such as mxfp4.')
  tensors, left_out = _tensors(w)
  axes = {name: contraction_axis(name, axis) for name in tensors}
  for spec in specs:
    _check_fit(tensors, spec, axes)
  limit = errors.magnitude(tensors)
  out = Comparison(
    tuple(errors.measure(tensors, spec, axes, limit) for spec in specs),
    errors.histogram(tensors, limit),
    limit,
    len(tensors),
    left_out,
  )
  if path is not None:
    out.draw(path)
  return out


def _tensors(w) -> tuple[dict[str, jax.Array], tuple[str, ...]]:
  """(name -> array to quantize, names of the rest); ValueError for neither."""
  if hasattr(w, 'dtype'):
    quantize.check_float(w, 'w')
    found, rest = {'w': w}, ()
  else:
    leaves = jax.tree_util.tree_leaves_with_path(w)
    named = {
      jax.tree_util.keystr(p, simple=True, separator='/'): x for p, x in leaves
    }
    fits = {name: _is_matrix(x) for name, x in named.items()}
    found = {name: x for name, x in named.items() if fits[name]}
    rest = tuple(name for name in named if not fits[name])
  if not sum(np.size(x) for x in found.values()):
    raise ValueError(
      'Nothing in `w` is a floating-point array with at least two axes; got '
      f'{", ".join(rest) or type(w).__name__}. Give an array, or a tree.'
    )
  for name, x in found.items():
    if not bool(jnp.all(jnp.isfinite(x))):
      raise ValueError(
        f'Tensor {name} of `w` holds NaN or Inf, which would take its blocks '
        'with it. Clean it first.'
      )
  return found, rest


def _is_matrix(x) -> bool:
  dtype = getattr(x, 'dtype', None)
  is_float = dtype is not None and jnp.issubdtype(dtype, jnp.floating)
  return is_float and np.ndim(x) >= 2 and np.size(x) > 0


def contraction_axis(name: str, axis: int | None) -> int:
  """`axis` if there is one; else -2 for a path that ends in kernel, or -1."""
  if axis is not None:
    return axis
  return -2 if name.split('/')[-1] == 'kernel' else -1


def _check_fit(tensors, spec: quantize.Spec, axes) -> None:
  """Raises ValueError, with the tensor's name, where a spec does not fit."""
  for name, x in tensors.items():
    try:
      quantize.qtensor.blocks_of(np.shape(x), spec, axes[name])
    except ValueError as error:
      raise ValueError(f'Tensor {name} of `w`: {error}') from error
