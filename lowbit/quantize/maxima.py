"""The largest magnitude of each block, in one pass, NaN kept."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

Axes = tuple[int, ...]


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def absmax(x: jax.Array, axes: Axes) -> jax.Array:
  """The largest magnitude of each block, `axes` kept; NaN where one is."""
  of_bits = functools.partial(_absmax_of_bits, axes=axes)
  plain = functools.partial(_absmax, axes=axes)
  return jax.lax.platform_dependent(x, cpu=of_bits, default=plain)


@absmax.defjvp
def _absmax_jvp(axes, primals, tangents):
  _, slope = jax.jvp(lambda x: _absmax(x, axes), primals, tangents)
  return absmax(*primals, axes), slope


def _absmax(x, axes):
  return jnp.max(jnp.abs(x), axis=axes, keepdims=True, initial=0.0)


def _absmax_of_bits(x, axes):
  """Magnitudes as integers, which have the same order, NaN above all.

  XLA's maximum of floats in a large array loses NaN on a CPU (jax 0.10). That
  of integers does not, and is one pass while no reduced axis is longer than 32;
  beyond that XLA writes |x| to memory first.
  """
  bits = x.view(jnp.int32) & 0x7FFFFFFF
  kept = tuple(1 if a in axes else n for a, n in enumerate(x.shape))
  if x.ndim - 1 in axes:
    bits = _shortened(bits)
    axes = (*axes, *range(x.ndim, bits.ndim))
  elif any(x.shape[a] > 32 for a in axes):
    few = _divisor(x.shape[axes[0]])
    if len(axes) > 1 or few < 8:
      return _absmax(x, axes) + poison(x, axes)
    bits = _in_two_steps(bits, *axes, few)
  return jnp.max(bits, axis=axes, initial=0).view(jnp.float32).reshape(kept)


def _divisor(n: int) -> int:
  """The largest divisor of at most 32."""
  return max(d for d in range(1, 33) if n % d == 0)


def _shortened(bits):
  """Maxima of the last axis, in one or two axes of at most 32 if it divides.

  Halves are compared in vector registers; one block after the other would be a
  branch an element. Slices in 8: XLA would copy more.
  """
  n = bits.shape[-1]
  if n > 256 and n % 256 == 0:
    bits = bits.reshape(*bits.shape[:-1], n // 256, 256)
  for _ in range(3):
    if bits.shape[-1] > 4 and bits.shape[-1] % 2 == 0:
      bits = jnp.maximum(*jnp.split(bits, 2, axis=-1))
  return bits


def _in_two_steps(bits, axis, few):
  """The maximum along an axis that is not the last, kept at length one.

  First of `few` neighbours; then as a window, which XLA leaves a step of its
  own (fused into the first, a second maximum makes both slow).
  """
  shape = bits.shape
  count = shape[axis] // few
  parts = (*shape[:axis], count, few, *shape[axis + 1 :])
  tops = jnp.max(bits.reshape(parts), axis=axis + 1)
  window = tuple(count if a == axis else 1 for a in range(len(shape)))
  return jax.lax.reduce_window(
    tops, np.int32(0), jax.lax.max, window, window, 'VALID'
  )


def poison(x: jax.Array, axes: Axes) -> jax.Array:
  """0 for each block, or NaN where it holds a NaN or an infinity.

  For where a maximum of floats may lose NaN; a sum does not.
  """
  return jnp.sum(x * 0.0, axis=axes, keepdims=True)
