"""How Shampoo keeps a preconditioner: whole, or as quantized eigenvectors.

A factor is a frozen value that keeps one preconditioner A [n, n]: `init(n)`,
`accumulate(state, m)` for A <- b A + (1 - b) m, `refresh(state)` for its
inverse fourth root, and `root(state)` to read that. Wang et al., 4-bit Shampoo
for Memory-Efficient Network Training, 2024 (arXiv:2405.18144).
"""

import dataclasses
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from lowbit import quantize
from lowbit.optim import matrix, storage


class Factor(Protocol):
  """How a preconditioner is kept."""

  def init(self, n: int) -> Any:
    """The state of a small multiple of the identity."""

  def accumulate(self, state, m: jax.Array) -> Any:
    """The state after statistics m [n, n] came in."""

  def refresh(self, state) -> Any:
    """The state with its root computed anew."""

  def root(self, state) -> jax.Array:
    """The root [n, n]."""


class ExactState(NamedTuple):
  """A preconditioner and its root, float32 [n, n]."""

  a: jax.Array
  root: jax.Array


@dataclasses.dataclass(frozen=True)
class Exact:
  """float32: what 4-bit Shampoo is compared with."""

  decay: float = 0.95
  ridge: float = 1e-6

  def init(self, n):
    """See `Factor`."""
    return ExactState(self.ridge * jnp.eye(n), jnp.eye(n))

  def accumulate(self, state, m):
    """See `Factor`."""
    a = self.decay * state.a + (1 - self.decay) * m
    return state._replace(a=a)

  def refresh(self, state):
    """By the coupled Newton iteration."""
    return state._replace(root=matrix.inverse_root(state.a, 4, self.ridge))

  def root(self, state):
    """See `Factor`."""
    return state.root


EXACT = Exact()


class EigenState(NamedTuple):
  """Eigenvalues, and the diagonal of the root, in float32 [n]."""

  values: jax.Array
  vectors: quantize.PackedQTensor | quantize.QTensor
  diagonal: jax.Array
  rest: quantize.PackedQTensor | quantize.QTensor


@dataclasses.dataclass(frozen=True)
class Eigen:
  """Quantized eigenvectors, and a quantized root off its diagonal.

  Blocks run down a column, never across eigenvectors. Bjorck steps make what
  was read orthonormal again: a power of the eigenvalues, a negative one above
  all, would amplify what is missing.

  Attributes:
    spec: Of eigenvectors and root.
    decay: Of the statistics.
    ridge: Added to the eigenvalues, times the largest.
    before_update: Bjorck steps before statistics are added.
    before_root: Bjorck steps before a root is taken.
  """

  spec: quantize.Spec | str = 'linear2_4@g64'
  decay: float = 0.95
  ridge: float = 1e-6
  before_update: int = 1
  before_root: int = 4

  def __post_init__(self):
    object.__setattr__(self, 'spec', quantize.Spec.parse(self.spec))

  def store(self, x: jax.Array):
    """A matrix in codes, blocks down its columns."""
    q = quantize.quantize(x, self.spec, -2)
    return quantize.pack(q) if self.spec.format.bits < 8 else q

  def load(self, stored) -> jax.Array:
    """The matrix of codes.

    Raises:
      ValueError: If it was stored by another spec.
    """
    if stored.spec != self.spec:
      raise ValueError(
        f'The optimizer state holds {stored.spec}, where {self.spec} is '
        'expected. Restore it with the factor that made it.'
      )
    is_packed = isinstance(stored, quantize.PackedQTensor)
    return quantize.dequantize(quantize.unpack(stored) if is_packed else stored)

  def init(self, n):
    """See `Factor`."""
    # Barriers, or XLA would encode constants to compile this.
    eye, ones = jax.lax.optimization_barrier((jnp.eye(n), jnp.ones((n,))))
    zeros = self.store(storage.zeros((n, n)))
    return EigenState(self.ridge * ones, self.store(eye), ones, zeros)

  def accumulate(self, state, m):
    """By one step of orthogonal iteration from the vectors that are there."""
    v = matrix.bjorck(self.load(state.vectors), self.before_update)
    a = self.decay * (v * state.values[None]) @ v.T + (1 - self.decay) * m
    values, vectors = matrix.eigen_step(a, v)
    return state._replace(values=values, vectors=self.store(vectors))

  def refresh(self, state):
    """See `Factor`."""
    v = matrix.bjorck(self.load(state.vectors), self.before_root)
    root = matrix.eigen_power(state.values, v, -0.25, self.ridge)
    diagonal = jnp.diagonal(root)
    rest = self.store(root - jnp.diag(diagonal))
    return state._replace(diagonal=diagonal, rest=rest)

  def root(self, state):
    """See `Factor`; made symmetric."""
    rest = self.load(state.rest)
    return (rest + rest.T) / 2 + jnp.diag(state.diagonal)
