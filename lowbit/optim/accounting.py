"""How many bits an optimizer's state takes."""

import jax
import jax.numpy as jnp

from lowbit import quantize
from lowbit.optim import structured

_STORED = (
  quantize.QTensor,
  quantize.PackedQTensor,
  structured.RankOneTensor,
  structured.FactoredTensor,
)


def state_bits(state) -> int:
  """Bits of a state as it lies in memory: codes, scales, counts and all."""
  return quantize.bits(jax.tree.map(_plain, state))


def _plain(leaf):
  is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
  return jax.random.key_data(leaf) if is_key else leaf


def describe(state) -> str:
  """A table of the state's leaves: bytes, storage and path, and a total."""
  is_stored = lambda x: isinstance(x, _STORED)
  leaves = jax.tree_util.tree_leaves_with_path(state, is_leaf=is_stored)
  lines = [
    f'{state_bits(leaf) // 8:>12,}  {_kind(leaf):<22}  '
    f'{jax.tree_util.keystr(path, simple=True, separator="/")}'
    for path, leaf in leaves
  ]
  total = f'{state_bits(state) // 8:>12,}  bytes in total'
  return '\n'.join([*lines, total])


def _kind(leaf) -> str:
  if isinstance(leaf, quantize.QTensor | quantize.PackedQTensor):
    return str(leaf.spec)
  if isinstance(leaf, structured.RankOneTensor):
    return f'{leaf.format.name} rank one'
  if isinstance(leaf, structured.FactoredTensor):
    return 'rows and columns'
  return f'{leaf.dtype}{list(leaf.shape)}'
