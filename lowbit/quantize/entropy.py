"""NeuZip: bfloat16 weights with entropy-coded exponents.

The exponents of trained weights hold about 2.5 bits of information; they are
coded by asymmetric numeral systems (the library constriction), order 0, one
table a tensor. Signs and mantissas are packed as they are. Hao et al., 2024
(arXiv:2410.20650). Runs on the host.
"""

import dataclasses
import math

import jax.numpy as jnp
import ml_dtypes
import numpy as np

from lowbit.quantize import packing

MANTISSA = 7


@dataclasses.dataclass(frozen=True)
class Compressed:
  """One tensor, compressed."""

  words: np.ndarray  # uint32, the coded exponents.
  counts: np.ndarray  # uint32 [256], how often each exponent occurs.
  rest: np.ndarray  # uint8, packed signs and mantissas.
  shape: tuple[int, ...]
  mantissa_bits: int

  @property
  def bits(self) -> int:
    """Bits at rest; of the table, one count for each exponent in use."""
    table = int(np.count_nonzero(self.counts)) * (8 + 32)
    return 32 * self.words.size + 8 * self.rest.size + table


def _constriction():
  try:
    import constriction
  except ImportError as error:
    raise ImportError(
      "Entropy coding needs constriction. Install the extra: pip install '.["
      "entropy]'."
    ) from error
  return constriction.stream


def _coder_model(stream, counts: np.ndarray):
  """The exponents in use, and their model."""
  used = np.flatnonzero(counts)
  share = counts[used] / counts.sum()
  # A model needs two symbols; the second of a constant tensor never occurs.
  share = share if len(used) > 1 else np.array([1.0, 1e-9])
  return used, stream.model.Categorical(share, perfect=False)


def compress(x, mantissa_bits: int = MANTISSA) -> Compressed:
  """Compresses a bfloat16 array.

  Args:
    x: bfloat16 array; NaN, infinities and zeros are kept where mantissa_bits
      is 7.
    mantissa_bits: 7 is lossless; less rounds the mantissa, half to even, with
      the carry into the exponent (the released code also normalises by blocks,
      which is not done here).

  Returns:
    A `Compressed`.

  Raises:
    TypeError: If `x` is not bfloat16.
    ValueError: If mantissa_bits is not in 0..7, x is empty, or a lossy x holds
      NaN or Inf.
  """
  x = np.asarray(x)
  if x.dtype != ml_dtypes.bfloat16:
    raise TypeError(f'`x` must be bfloat16, got {x.dtype}.')
  if not 0 <= mantissa_bits <= MANTISSA or not x.size:
    raise ValueError(
      f'`mantissa_bits` must lie in 0..7 and `x` hold numbers; got '
      f'{mantissa_bits} and shape {x.shape}.'
    )
  word = _rounded(
    x.reshape(-1).view(np.uint16).astype(np.uint32), mantissa_bits
  )
  exponent = (word >> MANTISSA) & 0xFF
  kept = (word & 0x7F) >> (MANTISSA - mantissa_bits)
  rest = ((word >> 15) << mantissa_bits) | kept
  counts = np.bincount(exponent, minlength=256).astype(np.uint32)
  stream = _constriction()
  used, model = _coder_model(stream, counts)
  coder = stream.stack.AnsCoder()
  coder.encode_reverse(np.searchsorted(used, exponent).astype(np.int32), model)
  packed = packing.pack_codes(jnp.asarray(rest, jnp.uint8), 1 + mantissa_bits)
  return Compressed(
    coder.get_compressed(), counts, np.asarray(packed), x.shape, mantissa_bits
  )


def _rounded(word: np.ndarray, mantissa_bits: int) -> np.ndarray:
  cut = MANTISSA - mantissa_bits
  if not cut:
    return word
  if ((word & 0x7F80) == 0x7F80).any():
    raise ValueError('`x` holds NaN or Inf, which a cut mantissa cannot keep.')
  body, sign = word & 0x7FFF, word & 0x8000
  odd = (body >> cut) & 1
  body = (body + (1 << (cut - 1)) - 1 + odd) >> cut << cut
  top = 0x7F80 - (1 << cut)  # Do not round up to infinity.
  return sign | np.minimum(body, top)


def decompress(c: Compressed) -> np.ndarray:
  """The bfloat16 array; bit for bit the original if lossless."""
  stream = _constriction()
  used, model = _coder_model(stream, c.counts)
  n = math.prod(c.shape)
  index = stream.stack.AnsCoder(c.words).decode(model, n)
  exponent = used[index].astype(np.uint32)
  rest = packing.unpack_codes(jnp.asarray(c.rest), 1 + c.mantissa_bits, n)
  rest = np.asarray(rest).astype(np.uint32)
  sign = rest >> c.mantissa_bits
  mantissa = (rest & ((1 << c.mantissa_bits) - 1)) << (
    MANTISSA - c.mantissa_bits
  )
  word = (sign << 15) | (exponent << MANTISSA) | mantissa
  return word.astype(np.uint16).view(ml_dtypes.bfloat16).reshape(c.shape)
