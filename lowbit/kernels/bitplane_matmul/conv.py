"""Convolutions bit by bit: patches along channels, then bitplane_matmul.

DeepliteRT, arXiv:2309.10878. What is padded is the number 0, which the bits of
a coding with an offset need not have: only codings of activations that have a
code for it are padded.
"""

import jax
import jax.numpy as jnp

from lowbit.kernels.bitplane_matmul import api, planes


def bitplane_conv(
  x: jax.Array,
  w: jax.Array,
  x_coding: planes.Coding,
  w_coding: planes.Coding,
  implementation=None,
) -> jax.Array:
  """Integer convolution of codes with padding 'SAME' and stride 1.

  Args:
    x: Bits of activations, unsigned integers [B, H, W, C].
    w: Bits of weights, unsigned integers [kernel, kernel, C, N], odd kernel.
    x_coding: What the bits of x mean; bits 0 must mean 0.
    w_coding: What the bits of w mean.
    implementation: As in `bitplane_matmul`.

  Returns:
    int32 [B, H, W, N].

  Raises:
    ValueError: If shapes do not match, or no zero can be padded.
  """
  size = w.shape[0]
  if x.ndim != 4 or w.ndim != 4 or w.shape[1] != size or size % 2 == 0:
    raise ValueError(
      '`x` must be [B, H, W, C] and `w` [k, k, C, N] with odd k, got '
      f'{x.shape} and {w.shape}.'
    )
  if x.shape[3] != w.shape[2]:
    raise ValueError(
      f'`x` has {x.shape[3]} channels and `w` takes {w.shape[2]}.'
    )
  if x_coding.offset and size > 1:
    raise ValueError(
      f'`x` is padded with bits 0, which mean {x_coding.offset} in {x_coding}. '
      'Use an unsigned or signed coding.'
    )
  y = api.bitplane_matmul(
    planes.pack_planes(patches(x, size), x_coding),
    planes.pack_planes(w.reshape(-1, w.shape[3]), w_coding, axis=-2),
    implementation=implementation,
  )
  return y.reshape(*x.shape[:3], w.shape[3])


def patches(x: jax.Array, size: int) -> jax.Array:
  """Patches of x [B, H, W, C], zeros around: [B H W, size^2 C]."""
  half = size // 2
  b, h, w, c = x.shape
  x = jnp.pad(x, ((0, 0), (half, half), (half, half), (0, 0)))
  parts = [x[:, i : i + h, j : j + w] for i in range(size) for j in range(size)]
  return jnp.concatenate(parts, axis=-1).reshape(b * h * w, size * size * c)
