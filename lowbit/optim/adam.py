"""Adam and AdamW whose moments lie in 8 or 4 bits."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from lowbit.optim import moments as moments_lib
from lowbit.optim import storage, structured

Mask = Any | Callable[[optax.Params], Any] | None

EIGHT_BIT = moments_lib.Moments('dynamic8@g256', 'udynamic8@g256')
FOUR_BIT = moments_lib.Moments('dynamic4@g128', structured.RankOne('linear0_4'))
FOUR_BIT_FACTORED = moments_lib.Moments(
  'dynamic4@g128', structured.Factored(storage.Flat('linear0_4@g128'))
)


class ScaleByAdamState(NamedTuple):
  """Stored moments, one for each parameter."""

  count: jax.Array  # int32 [], steps done.
  mu: optax.Updates
  nu: optax.Updates


def scale_by_adam(
  b1: float = 0.9,
  b2: float = 0.999,
  eps: float = 1e-8,
  moments: moments_lib.Moments = EIGHT_BIT,
) -> optax.GradientTransformation:
  """`optax.scale_by_adam` with stored moments.

  The update uses the new moments as they are; they lose precision when they are
  stored for the next step. Where `moments` stores nothing (`min_size` above
  every size) the result is optax's, bit for bit.

  A NaN or infinity in a gradient spreads to its block, and stays: see
  `skip_nonfinite`.

  Args:
    b1: Decay of the first moment.
    b2: Decay of the second moment.
    eps: Added to the root of the second moment.
    moments: What is stored how. Static.

  Returns:
    A transformation; updates keep the dtype of the gradients.

  Raises:
    ValueError: If `moments` has no second moment, or `update` gets a state
      stored in another way.

  >>> tx = lowbit.optim.scale_by_adam()
  """
  if moments.second is None:
    raise ValueError(
      '`moments` has no second moment, and Adam needs one. Give second=, such '
      "as 'udynamic8@g256'."
    )

  def init_fn(params):
    return ScaleByAdamState(
      jnp.zeros([], jnp.int32),
      moments_lib.init(moments, moments.first, params),
      moments_lib.init(moments, moments.second, params),
    )

  def new(g, mu, nu):
    return (
      optax.tree.update_moment(g, mu, b1, 1),
      optax.tree.update_moment_per_elem_norm(g, nu, b2, 2),
    )

  def update_fn(updates, state, params=None):
    del params
    count = optax.safe_increment(state.count)

    def direction(g, old, moments):
      del g, old
      mu_hat, nu_hat = (
        m / moments_lib.correction(b, count) for m, b in zip(moments, (b1, b2))
      )
      return mu_hat / (jnp.sqrt(nu_hat) + eps)

    updates, (mu, nu) = moments_lib.advance(
      new,
      direction,
      (moments.first, moments.second),
      updates,
      (state.mu, state.nu),
      moments.key(count),
    )
    return updates, ScaleByAdamState(count, mu, nu)

  return optax.GradientTransformation(init_fn, update_fn)


def adam8bit(
  learning_rate: optax.ScalarOrSchedule,
  b1: float = 0.9,
  b2: float = 0.999,
  eps: float = 1e-8,
  moments: moments_lib.Moments = EIGHT_BIT,
) -> optax.GradientTransformation:
  """Adam with block-wise 8-bit moments: about 2 bytes a parameter, not 8.

  Dynamic-tree codes, an absmax for each 256 elements of the flattened tensor
  (the paper's 2048: moments=Moments('dynamic8@g2048', 'udynamic8@g2048')),
  float32 below 4096 elements. Nothing else differs from the 32-bit run.

  References:
    Dettmers et al., `8-bit Optimizers via Block-wise Quantization
    <https://arxiv.org/abs/2110.02861>`_, 2021
  """
  return optax.chain(
    scale_by_adam(b1, b2, eps, moments),
    optax.scale_by_learning_rate(learning_rate),
  )


def adamw8bit(
  learning_rate: optax.ScalarOrSchedule,
  b1: float = 0.9,
  b2: float = 0.999,
  eps: float = 1e-8,
  weight_decay: float = 1e-4,
  mask: Mask = None,
  moments: moments_lib.Moments = EIGHT_BIT,
) -> optax.GradientTransformation:
  """`adam8bit` with decoupled weight decay, where `mask` allows it."""
  return optax.chain(
    scale_by_adam(b1, b2, eps, moments),
    optax.add_decayed_weights(weight_decay, mask),
    optax.scale_by_learning_rate(learning_rate),
  )


def adamw4bit(
  learning_rate: optax.ScalarOrSchedule,
  b1: float = 0.9,
  b2: float = 0.999,
  eps: float = 1e-8,
  weight_decay: float = 1e-4,
  mask: Mask = None,
  moments: moments_lib.Moments = FOUR_BIT,
) -> optax.GradientTransformation:
  """AdamW with 4-bit moments: about 1 byte a parameter, not 8.

  First moment: signed dynamic tree in blocks of 128. Second: k / 16 without
  zero, scaled by the least of its row and column maxima (vectors: blocks of
  128). `moments=FOUR_BIT_FACTORED` keeps row and column means instead.

  References:
    Li et al., `Memory Efficient Optimizers with 4-bit States
    <https://arxiv.org/abs/2309.01507>`_, 2023
  """
  return adamw8bit(learning_rate, b1, b2, eps, weight_decay, mask, moments)
