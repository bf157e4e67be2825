"""Number formats: which values exist. NumPy and ml_dtypes alone."""

from lowbit.formats.base import ROUNDINGS, FloatGrid, Format
from lowbit.formats.catalogue import nf
from lowbit.formats.dint import DInt
from lowbit.formats.fixed import FixedPoint
from lowbit.formats.float_grid import GridFormat, round_to_float_grid
from lowbit.formats.integer import Integer
from lowbit.formats.minifloat import E8M0, Float32, Minifloat
from lowbit.formats.names import get, names
from lowbit.formats.posit import Posit
from lowbit.formats.side import Choice, SideFormat, TwoSided
from lowbit.formats.table import Table

__all__ = [
  'E8M0',
  'ROUNDINGS',
  'Choice',
  'DInt',
  'FixedPoint',
  'Float32',
  'FloatGrid',
  'Format',
  'GridFormat',
  'Integer',
  'Minifloat',
  'Posit',
  'SideFormat',
  'Table',
  'TwoSided',
  'get',
  'names',
  'nf',
  'round_to_float_grid',
]
