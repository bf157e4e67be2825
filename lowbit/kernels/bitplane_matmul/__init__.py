"""Integer products of any widths, as sums of products of single bits."""

from lowbit.kernels.bitplane_matmul.api import bitplane_matmul
from lowbit.kernels.bitplane_matmul.conv import bitplane_conv
from lowbit.kernels.bitplane_matmul.planes import (
  Coding,
  Planes,
  pack_planes,
)

__all__ = [
  'Coding',
  'Planes',
  'bitplane_conv',
  'bitplane_matmul',
  'pack_planes',
]
