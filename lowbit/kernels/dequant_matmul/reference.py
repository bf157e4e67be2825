"""x W with W decoded whole: the truth that the kernels are held to."""

import jax
import jax.numpy as jnp

from lowbit import quantize


def dequant_matmul(x: jax.Array, w, precision=None) -> jax.Array:
  """x [..., K] times a QTensor or PackedQTensor [K, N], in the dtype of x."""
  q = quantize.unpack(w) if isinstance(w, quantize.PackedQTensor) else w
  y = jnp.matmul(
    x.astype(jnp.float32), quantize.dequantize(q), precision=precision
  )
  return y.astype(x.dtype)
