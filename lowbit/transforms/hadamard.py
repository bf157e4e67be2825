"""Hadamard transforms of any width that has one by Paley or doubling.

Widths are base * 2^k, with a base from Paley's two constructions over prime
fields (12, 20, 28, 36, 44, 60, ...). Multiples of 4 that this misses start with
52, 92, 100, 116; take blocks there.
"""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

FACTOR = 64  # The largest Sylvester factor that is applied as one matrix.


def _is_prime(n: int) -> bool:
  return n > 1 and all(n % p for p in range(2, math.isqrt(n) + 1))


def _jacobsthal(q: int) -> np.ndarray:
  """Q[i, j] = quadratic character of i - j modulo the prime q."""
  character = -np.ones(q, np.int64)
  character[np.arange(q) ** 2 % q] = 1
  character[0] = 0
  return character[(np.arange(q)[:, None] - np.arange(q)) % q]


def _bordered(q: int, sign: int) -> np.ndarray:
  core = np.zeros((q + 1, q + 1), np.int64)
  core[0, 1:], core[1:, 0], core[1:, 1:] = 1, sign, _jacobsthal(q)
  return core


def _paley(n: int) -> np.ndarray | None:
  """Paley's matrix of order n: q + 1 (q = 3 mod 4) or 2 q + 2 (q = 1 mod 4)."""
  if n % 4 == 0 and _is_prime(n - 1):
    return np.eye(n, dtype=np.int64) + _bordered(n - 1, -1)
  q = n // 2 - 1
  if n % 4 == 0 and q % 4 == 1 and _is_prime(q):
    core, eye = _bordered(q, 1), np.eye(q + 1, dtype=np.int64)
    return np.kron(core, [[1, 1], [1, -1]]) + np.kron(eye, [[1, -1], [-1, -1]])
  return None


@functools.cache
def split_width(n: int) -> tuple[int, int] | None:
  """(base, 2^k) with n = base * 2^k, the base as small as can be, or None."""
  if n < 1:
    return None
  odd = n & -n
  for power in (2**k for k in range(odd.bit_length() - 1, -1, -1)):
    base = n // power
    if base == 1 or _paley(base) is not None:
      return base, power
  return None


@functools.cache
def hadamard_matrix(n: int) -> np.ndarray:
  """A Hadamard matrix, int8 [n, n] of +-1: H H^T = n I.

  Raises:
    ValueError: If no matrix of this order is known here.
  """
  split = split_width(n)
  if split is None:
    raise ValueError(
      f'No Hadamard matrix of width {n} is known here. Use block='
      f'{largest_block(n)}, which divides it.'
    )
  base, power = split
  matrix = np.ones((1, 1), np.int64) if base == 1 else _paley(base)
  for _ in range(power.bit_length() - 1):
    matrix = np.kron(matrix, [[1, 1], [1, -1]])
  return matrix.astype(np.int8)


def largest_block(n: int) -> int:
  """The largest divisor of n that has a Hadamard matrix."""
  return next(d for d in range(n, 0, -1) if n % d == 0 and split_width(d))


def _factors(n: int) -> list[np.ndarray]:
  """Small orthonormal matrices whose Kronecker product is H_n / sqrt(n)."""
  base, power = split_width(n)
  sizes = [base] if base > 1 else []
  while power > 1:
    sizes.append(min(power, FACTOR))
    power //= sizes[-1]
  return [(hadamard_matrix(s) / math.sqrt(s)).astype(np.float32) for s in sizes]


def apply_hadamard(
  x: jax.Array, block: int | None = None, transpose: bool = False
) -> jax.Array:
  """x (H / sqrt(n)) along the last axis, in blocks if asked.

  Args:
    x: Float array [..., width].
    block: Width of one transform; None for the whole axis.
    transpose: Apply the inverse instead.

  Returns:
    An array like `x`, computed in float32.

  Raises:
    ValueError: If the width has no Hadamard matrix, or `block` does not divide.
  """
  width = x.shape[-1]
  n = block or width
  if width % n:
    raise ValueError(f'`block` {n} does not divide the width {width} of `x`.')
  hadamard_matrix(n)  # Raises if there is none.
  factors = _factors(n)
  y = x.astype(jnp.float32).reshape(-1, *(f.shape[0] for f in factors))
  for i, factor in enumerate(factors):
    y = jnp.tensordot(
      y,
      factor.T if transpose else factor,
      axes=[[i + 1], [0]],
      precision='highest',
    )
    y = jnp.moveaxis(y, -1, i + 1)
  return y.reshape(x.shape).astype(x.dtype)


@dataclasses.dataclass(frozen=True)
class Hadamard:
  """A static, hashable orthogonal transform of the last axis.

  Attributes:
    width: Length of the axis.
    block: Width of one transform; None for the whole axis.
    seed: None for the plain transform; an int for random signs first:
      x -> (x * signs) H, the randomized Hadamard transform.
  """

  width: int
  block: int | None = None
  seed: int | None = None

  def __post_init__(self):
    if self.block is not None and self.width % self.block:
      raise ValueError(
        f'`block` {self.block} does not divide `width` {self.width}.'
      )
    hadamard_matrix(self.block or self.width)

  def _signs(self) -> np.ndarray:
    rng = np.random.default_rng(self.seed)
    return rng.choice(np.asarray([-1.0, 1.0], np.float32), self.width)

  def __call__(self, x: jax.Array) -> jax.Array:
    """x [..., width] times the matrix."""
    if self.seed is not None:
      x = jnp.einsum('...i,i->...i', x, self._signs().astype(x.dtype))
    return apply_hadamard(x, self.block)

  def inverse(self, x: jax.Array) -> jax.Array:
    """x [..., width] times the transposed matrix."""
    x = apply_hadamard(x, self.block, transpose=True)
    if self.seed is not None:
      x = jnp.einsum('...i,i->...i', x, self._signs().astype(x.dtype))
    return x

  def matrix(self) -> jax.Array:
    """The matrix, float32 [width, width]; its inverse is its transpose."""
    return self(jnp.eye(self.width, dtype=jnp.float32))
