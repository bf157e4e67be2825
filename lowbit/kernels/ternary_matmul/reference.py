"""The forward pass of BitNet training, which serving must not change."""

import jax
import jax.numpy as jnp

from lowbit import quantize


def bit_linear(x: jax.Array, w: jax.Array, codes: bool = False):
  """What training computes: fake-quantized x times fake-quantized w.

  x per row to int8 by absmax / 127, w to {-1, 0, 1} by the mean of |w|.

  Args:
    x: Float array [..., K].
    w: Float matrix [K, N], the latent weights.
    codes: Also return the integer product.

  Returns:
    float32 [..., N]; with `codes`, (that, int32 [..., N]).
  """
  q = quantize.quantize(x.astype(jnp.float32), 'int8@token')
  scale = mean_of(w)
  t = jnp.clip(jnp.rint(w / scale), -1.0, 1.0)
  y = jnp.matmul(quantize.dequantize(q), t * scale, precision='highest')
  if not codes:
    return y
  return y, q.codes.astype(jnp.int32) @ t.astype(jnp.int32)


def mean_of(w: jax.Array) -> jax.Array:
  """Mean magnitude of w, float32, 1 for zeros."""
  mean = jnp.mean(jnp.abs(w.astype(jnp.float32)))
  return jnp.where(mean > 0, mean, 1.0)
