"""A small net that lifts low-bit weights to more bits, step by step.

After Yoon et al., ProWD, 2022 (arXiv:2202.11453); the blocks are our own, as
the paper's are not published.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn


class Block(nn.Module):
  """chunk + dense(relu(dense(chunk))), which begins as the identity."""

  hidden: int

  @nn.compact
  def __call__(self, x):
    """Maps chunks [..., chunk] to the same shape."""
    zero = nn.initializers.zeros_init()
    y = jax.nn.relu(nn.Dense(self.hidden, name='up')(x))
    return x + nn.Dense(x.shape[-1], kernel_init=zero, name='down')(y)


class Dequantizer(nn.Module):
  """Weights [chunks, chunk] -> what each of the steps makes of them.

  Attributes:
    steps: Number of lifts, such as 3 for 2 -> 4 -> 8 -> 32 bits.
    hidden: Width of a block.
  """

  steps: int = 3
  hidden: int = 64

  @nn.compact
  def __call__(self, chunks):
    """Returns [steps, chunks, chunk]; the last is the answer."""
    found = []
    for i in range(self.steps):
      chunks = Block(self.hidden, name=f'lift_{i}')(chunks)
      found.append(chunks)
    return jnp.stack(found)


def reconstruction(
  steps: jax.Array, weights: jax.Array, quantizers: Sequence[Callable | None]
) -> jax.Array:
  """sum over steps of the mean of |step k - Q_(k+1)(weights)|^2.

  Args:
    steps: [steps, chunks, chunk], of `Dequantizer`.
    weights: The wide weights [chunks, chunk] whose narrow form was lifted.
    quantizers: What each step should give, from its weights; None for the
      weights themselves.

  Returns:
    float32 [].

  Raises:
    ValueError: If there is not one quantizer a step.
  """
  if len(quantizers) != steps.shape[0]:
    raise ValueError(
      f'`quantizers` has {len(quantizers)} entries for {steps.shape[0]} steps.'
    )
  wanted = [weights if q is None else q(weights) for q in quantizers]
  return jnp.sum(jnp.mean((steps - jnp.stack(wanted)) ** 2, axis=(1, 2)))
