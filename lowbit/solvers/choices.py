"""Solvers as values: what a rule of a recipe names.

A solver is a frozen callable (w [out, in], statistics or None, spec) ->
QTensor, with `needs_statistics`.
"""

import dataclasses
from typing import Protocol

import jax

from lowbit import quantize
from lowbit.solvers import columns, statistics


class Solver(Protocol):
  """What `Rule.solver` must be."""

  needs_statistics: bool

  def __call__(
    self,
    w: jax.Array,
    stats: statistics.Statistics | None,
    spec: quantize.Spec,
  ) -> quantize.QTensor:
    """Quantizes w [out, in]."""


def nearest(w: jax.Array, spec: quantize.Spec | str) -> quantize.QTensor:
  """Rounds each weight by itself: w [out, in], groups along `in`."""
  return quantize.quantize(w, spec)


@dataclasses.dataclass(frozen=True)
class Nearest:
  """Round to nearest, RTN."""

  needs_statistics = False

  def __call__(self, w, stats, spec):
    """See `nearest`."""
    del stats
    return nearest(w, spec)


@dataclasses.dataclass(frozen=True)
class Gptq:
  """See `columns.gptq`."""

  act_order: bool = False
  damping: float = 0.01
  needs_statistics = True

  def __call__(self, w, stats, spec):
    """See `columns.gptq`."""
    return columns.gptq(
      w, stats.hessian, spec, act_order=self.act_order, damping=self.damping
    )
