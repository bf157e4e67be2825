"""What guides the attention of a quantized model: entropy and likeness.

Low-bit queries and keys tell tokens apart less, and attention maps drift from
the float model's. Two losses pull against that. Shen et al., EdgeQAT, 2024
(arXiv:2402.10787).
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

_LEAST = 1e-3  # The likeness whose logarithm is the largest loss.


def sown(intermediates, name: str) -> list[jax.Array]:
  """Values of a name in the 'intermediates' of a model, layer by layer.

  Raises:
    ValueError: If there are none.
  """
  leaves = jax.tree_util.tree_leaves_with_path(intermediates)
  found = [
    leaf
    for path, leaf in leaves
    if name in {getattr(k, 'key', 0) for k in path}
  ]
  if not found:
    raise ValueError(
      f'There are no {name!r} in the intermediates. Run the model with '
      "mutable=['intermediates'], and layers that sow them."
    )
  return found


def entropy(x: jax.Array) -> jax.Array:
  """Mean log(1 + variance) of the vectors on the last axis: float32 [].

  It stands for the entropy of a Gaussian, (1/2) log(2 pi e variance), and is 0
  for constant vectors.
  """
  x = x.astype(jnp.float32)
  return jnp.mean(jnp.log1p(jnp.var(x, axis=-1)))


def entropy_loss(
  queries: Sequence[jax.Array], keys: Sequence[jax.Array]
) -> jax.Array:
  """L_E = -log(sum over layers of the entropies of queries and keys).

  Means over vectors in place of the paper's sums, which differ by a constant.

  Args:
    queries: Of each layer, [..., C].
    keys: Likewise.

  Returns:
    float32 [].
  """
  total = sum(map(entropy, (*queries, *keys)), jnp.float32(0))
  return -jnp.log(jnp.maximum(total, _LEAST))


def likeness(student: jax.Array, teacher: jax.Array) -> jax.Array:
  """Mean cosine of causal attention scores, head by head: float32 [].

  Args:
    student: [..., T, T], before the mask, of which the lower triangle counts.
    teacher: Likewise; no gradient reaches it.

  Returns:
    In [-1, 1].

  Raises:
    ValueError: If shapes differ.
  """
  if student.shape != teacher.shape:
    raise ValueError(
      '`student` and `teacher` must have one shape, got '
      f'{student.shape} and {teacher.shape}.'
    )
  seen = jnp.tril(jnp.ones(student.shape[-2:], jnp.float32))
  seen = seen.reshape((1,) * (student.ndim - 2) + seen.shape)
  a = student.astype(jnp.float32) * seen
  b = jax.lax.stop_gradient(teacher).astype(jnp.float32) * seen
  dot = lambda x, y: jnp.sum(x * y, axis=(-2, -1))
  square = dot(a, a) * dot(b, b)
  return jnp.mean(dot(a, b) * jax.lax.rsqrt(jnp.where(square > 0, square, 1.0)))


def distribution_loss(
  student: Sequence[jax.Array], teacher: Sequence[jax.Array]
) -> jax.Array:
  """L_D = -log of the mean likeness over layers.

  The released trainer adds +log, which would drive maps apart; the paper means
  this. At a likeness of 0.001 or less it is constant.

  Args:
    student: Scores of each layer, see `likeness`.
    teacher: Likewise.

  Returns:
    float32 [], 0 where all maps are alike up to scale.
  """
  each = [likeness(s, t) for s, t in zip(student, teacher, strict=True)]
  return -jnp.log(jnp.maximum(sum(each) / len(each), _LEAST))
