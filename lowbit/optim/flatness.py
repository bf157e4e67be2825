"""Two gradients of a loss: here, and a step uphill, where it is sharpest."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax


def uphill(gradient, rho: float, alpha: float = 0.0):
  """rho g / |g| - alpha g, |g| the norm over the whole tree.

  Where a loss rises most within a distance rho: Foret et al., Sharpness-Aware
  Minimization, 2020 (arXiv:2010.01412). `alpha` aligns the two gradients: Wang
  et al., SAGM, 2023 (arXiv:2303.10640). A gradient of zero leads nowhere.
  """
  norm = optax.tree.norm(gradient)
  scale = rho / jnp.where(norm > 0, norm, 1.0) - alpha
  return jax.tree.map(lambda g: g * scale.astype(g.dtype), gradient)


def two_gradients(
  loss: Callable, variables, rho: float = 0.05, alpha: float = 0.0
):
  """The gradient of the task, and that of flatness.

  Args:
    loss: variables -> scalar.
    variables: Float tree. All of it is perturbed, quantizers too.
    rho: Distance, positive.
    alpha: See `uphill`; 0 is SAM.

  Returns:
    `(value, task, smooth)`: the loss and its gradient here, and the gradient at
    variables + uphill(task), which itself is held constant.

  Raises:
    ValueError: If `rho` is not positive.
  """
  if rho <= 0:
    raise ValueError(
      f'`rho` must be positive, got {rho}. Without a distance both gradients '
      'are one: use jax.value_and_grad.'
    )
  value, task = jax.value_and_grad(loss)(variables)
  there = optax.tree.add(variables, uphill(task, rho, alpha))
  return value, task, jax.grad(loss)(there)
