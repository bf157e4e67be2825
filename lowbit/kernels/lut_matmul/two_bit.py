"""lut_gemm_2bit: all 16 products of 2-bit codes are precomputed (DeepGEMM).

sum_k T[4 w_k + a_k] for any table T, so that levels need not be uniform
(arXiv:2304.09049). A CPU shuffles bytes; matrix units add instead: for each of
the four activation codes, [a = c] is a 0/1 matrix, and T[4 w + c] the weight to
multiply it with, which three selects make of the codes.
"""

import functools
import importlib

import jax
import jax.numpy as jnp
import numpy as np

from lowbit.kernels import choice, storage
from lowbit.quantize import packing

CODES = 4
CHUNK = packing.CHUNK


def lut_gemm_2bit(
  x: jax.Array,
  words: jax.Array,
  table: tuple[float, ...],
  *,
  implementation: choice.Implementation = None,
  interpret: bool = False,
) -> jax.Array:
  """sum_k table[4 w[k, n] + x[m, k]].

  Args:
    x: Codes 0..3 of activations, uint8 [M, K].
    words: Codes 0..3 of weights [K, N], packed four to a byte along K by
      `quantize.packing.pack_codes`: uint8 [K / 4, N].
    table: The 16 products, static. Whole numbers within int8 are added in
      int32, exactly; others in float32.
    implementation: As in `int_matmul`.
    interpret: As in `int_matmul`.

  Returns:
    [M, N], int32 or float32.

  Raises:
    ValueError: If the table has not 16 entries, or lengths do not match.
  """
  table = tuple(float(t) for t in table)
  if len(table) != CODES**2:
    raise ValueError(f'`table` must have 16 products, got {len(table)}.')
  size = -(-x.shape[1] // CODES)
  if x.ndim != 2 or words.ndim != 2 or words.shape[0] != size:
    raise ValueError(
      f'`words` {words.shape} must have {size} rows: four codes a byte for the '
      f'{x.shape[1]} columns of `x`.'
    )
  options = _candidates(table, interpret)
  choice.check('lut_gemm_2bit', options, implementation, interpret, x, words)
  if implementation is None:
    choice.warn_fallback('lut_gemm_2bit', options, x, words)
  return _run(x, words, table, implementation, interpret)


@functools.partial(jax.jit, static_argnums=(2, 3, 4))
def _run(x, words, table, implementation, interpret):
  return choice.run(_candidates(table, interpret), implementation, x, words)


def kind_of(table: tuple[float, ...]):
  """(dtype of the factors, dtype of the sums)."""
  whole = all(t == int(t) and abs(t) <= 127 for t in table)
  return (jnp.int8, jnp.int32) if whole else (jnp.float32, jnp.float32)


def reference(x, words, table) -> jax.Array:
  """The definition, by gathers."""
  w = packing.unpack_codes(words.T, 2, x.shape[1]).astype(jnp.int32)
  index = 4 * w[None] + x.astype(jnp.int32)[:, None]
  sums = kind_of(table)[1]
  return jnp.sum(jnp.asarray(table, sums)[index], axis=2, dtype=sums)


def one_hot(x, factor) -> jax.Array:
  """[a = c] for the four codes c: [4, M, K] of dtype `factor`."""
  codes = np.arange(CODES, dtype=np.uint8)[:, None, None]
  return (x[None] == codes).astype(factor)


def mapped(fields, table, code: int, factor) -> jax.Array:
  """table[4 w + code] of fields w, int32, by selects; dtype `factor`."""
  row = np.asarray(table[code::CODES], np.float32)
  values = storage.select(fields, row)
  if factor == jnp.int8:  # Through int32, which every compiler converts.
    values = values.astype(jnp.int32)
  return values.astype(factor)


def xla(x, words, table) -> jax.Array:
  """Four products with mapped weights; exact sums in float32 below 2^24."""
  factor, sums = kind_of(table)
  w = packing.unpack_codes(words.T, 2, x.shape[1]).T.astype(jnp.int32)
  hot = one_hot(x, factor)
  y = jnp.zeros((x.shape[0], w.shape[1]), sums)
  for c in range(CODES):
    y = y + _dot(hot[c], mapped(w, table, c, factor))
  return y


def _dot(a, b):
  if a.dtype == jnp.int8:  # A module of the same family has it.
    from lowbit.kernels.int_matmul import xla as exact

    return exact.long_dot(a, b)
  return jnp.dot(a, b, precision='highest')


def _candidates(table, interpret: bool) -> tuple[choice.Candidate, ...]:
  def on(name):
    module = lambda: importlib.import_module(
      f'lowbit.kernels.lut_matmul.two_bit_{name}'
    )
    run = lambda x, words: module().product(x, words, table, interpret)
    return choice.Candidate(name, run, lambda x, w: module().reasons(x, w))

  return (
    on('tpu'),
    on('gpu'),
    choice.Candidate('xla', lambda x, words: xla(x, words, table)),
    choice.Candidate('reference', lambda x, words: reference(x, words, table)),
  )
