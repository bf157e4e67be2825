"""A quantized layer as an expression: y = x W, W [in, out].

Every node is a pytree with `apply(x)`, `dense()`, `shape` and `bits()`.
`dense()` is the truth; `apply(x)` equals `x @ dense()`, but for the rounding of
`QuantizeInput`, which only applies to inputs.
"""

from lowbit.operators.base import Operator, as_operator, bits, matmul
from lowbit.operators.leaves import Coded, LowRank, Matrix, Sparse, decode, pack
from lowbit.operators.mixed_groups import MixedGroups
from lowbit.operators.nodes import (
  Permuted,
  QuantizeInput,
  Rotated,
  Scaled,
  Split,
  Sum,
)
from lowbit.operators.products import (
  conv_general_dilated as conv,
)
from lowbit.operators.products import dot_general, einsum

__all__ = [
  'Coded',
  'LowRank',
  'Matrix',
  'MixedGroups',
  'Operator',
  'Permuted',
  'QuantizeInput',
  'Rotated',
  'Scaled',
  'Sparse',
  'Split',
  'Sum',
  'as_operator',
  'bits',
  'conv',
  'decode',
  'dot_general',
  'einsum',
  'matmul',
  'pack',
]
