"""Cross-layer equalization of two linears with a ReLU between."""

import jax
import jax.numpy as jnp


def equalize(
  w1: jax.Array, b1: jax.Array, w2: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Makes the ranges of w1's outputs and w2's inputs equal, channel by channel.

  s = sqrt(r1 / r2) with r the absmax of a channel; w1 and b1 are divided by s,
  w2's rows multiplied. ReLU(x / s) = ReLU(x) / s keeps the function. Nagel et
  al., A White Paper on Neural Network Quantization, 2021 (arXiv:2106.08295).

  Args:
    w1: [in, hidden].
    b1: [hidden].
    w2: [hidden, out].

  Returns:
    The new `(w1, b1, w2)`.
  """
  r1, r2 = jnp.max(jnp.abs(w1), axis=0), jnp.max(jnp.abs(w2), axis=1)
  alive = (r1 > 0) & (r2 > 0)
  s = jnp.where(alive, jnp.sqrt(r1 / jnp.where(alive, r2, 1.0)), 1.0)
  return w1 / s[None], b1 / s, w2 * s[:, None]
