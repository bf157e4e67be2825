"""Steps with a NaN or an infinity in a gradient are left out, and counted."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax


class SkipNonfiniteState(NamedTuple):
  """The inner state, and what was left out."""

  skipped: jax.Array  # int32 [], steps left out.
  bad: optax.Updates  # int32 [] for each parameter: how often it was the cause.
  inner: optax.OptState


def skip_nonfinite(
  inner: optax.GradientTransformation,
) -> optax.GradientTransformationExtraArgs:
  """Updates are zero, and the state stays, where a gradient is not finite.

  One NaN would spread to its block of a stored moment, and stay there. Unlike
  `optax.apply_if_finite` it never gives in, and `bad`, a tree like the
  parameters, tells where the cause lay, without a host round trip.

  >>> tx = lowbit.optim.skip_nonfinite(lowbit.optim.adamw8bit(1e-3))
  """
  inner = optax.with_extra_args_support(inner)

  def init_fn(params):
    zero = lambda _: jnp.zeros([], jnp.int32)
    return SkipNonfiniteState(
      jnp.zeros([], jnp.int32), jax.tree.map(zero, params), inner.init(params)
    )

  def update_fn(updates, state, params=None, **extra):
    is_bad = jax.tree.map(lambda g: ~jnp.all(jnp.isfinite(g)), updates)
    any_bad = jnp.any(jnp.stack([jnp.bool_(False), *jax.tree.leaves(is_bad)]))

    def skip(updates, inner_state):
      return jax.tree.map(jnp.zeros_like, updates), inner_state

    def step(updates, inner_state):
      new, inner_state = inner.update(updates, inner_state, params, **extra)
      like = lambda x, g: x.astype(g.dtype)
      return jax.tree.map(like, new, updates), inner_state

    new, inner_state = jax.lax.cond(any_bad, skip, step, updates, state.inner)
    count = lambda n, flag: n + flag.astype(jnp.int32)
    return new, SkipNonfiniteState(
      count(state.skipped, any_bad),
      jax.tree.map(count, state.bad, is_bad),
      inner_state,
    )

  return optax.GradientTransformationExtraArgs(init_fn, update_fn)
