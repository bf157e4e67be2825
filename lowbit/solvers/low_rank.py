"""Low-rank compensation of a quantization error (LoRC).

Wu et al., ZeroQuant-FP, 2023 (arXiv:2307.09782): W - W^ = U S V^T, and the
leading r terms are kept, split evenly as (U S^1/2)(S^1/2 V^T).
"""

import jax
import jax.numpy as jnp


def low_rank(error: jax.Array, rank: int) -> tuple[jax.Array, jax.Array]:
  """The best rank-r factors of an error.

  Args:
    error: float32 [out, in], W - W^.
    rank: r, at most the smaller side.

  Returns:
    `(a, b)`, float32 [out, r] and [r, in], with a b near `error`.

  Raises:
    ValueError: If the rank does not fit.
  """
  if error.ndim != 2 or not 1 <= rank <= min(error.shape):
    raise ValueError(
      f'`rank` must lie in 1..{min(error.shape)} for an error [out, in] of '
      f'shape {error.shape}; got {rank}.'
    )
  u, s, vt = jnp.linalg.svd(error.astype(jnp.float32), full_matrices=False)
  root = jnp.sqrt(s[:rank])
  return u[:, :rank] * root[None], root[:, None] * vt[:rank]
