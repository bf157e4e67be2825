"""Scales whose task gradient pulls one way are left to the flatness gradient.

Gradient disorder is the share of steps at which a gradient changes its sign. A
scale with little of it is dragged steadily by the task, against what keeps the
minimum flat; GAQAT freezes the task's part there, a window at a time. Jiang et
al., GAQAT, 2024 (arXiv:2412.05551); window and threshold are reconstructed.
"""

import re
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax


class Disorder(NamedTuple):
  """What is known of each gated leaf, by its path; arrays like the leaf."""

  step: jax.Array  # int32 [].
  sign: dict[str, jax.Array]  # float32, of the last task gradient.
  flips: dict[str, jax.Array]  # float32, in this window.
  disorder: dict[str, jax.Array]  # float32, of the last whole window; 1 before.


def freeze_ordered(
  window: int, threshold: float, pattern: str = 'quantizers/.*'
) -> optax.GradientTransformationExtraArgs:
  """First of a chain: task + smooth gradient, the first where it is let in.

  Its update takes the smooth gradient, and `task=` the other one, as
  `two_gradients` gives them. An element of a leaf whose path matches gets the
  task's part unless its disorder in the last window was below the threshold;
  all other leaves get it always. Disorder is counted on, so that what was
  frozen comes back.

  Args:
    window: Steps, K.
    threshold: r in [0, 1]; 0 never freezes.
    pattern: Regular expression of whole paths, 'quantizers/dense/kernel/step'.

  Returns:
    A transformation with a `Disorder` state.

  Raises:
    ValueError: If an argument is out of range or, at init, nothing matches.
  """
  if window < 1 or not 0 <= threshold <= 1:
    raise ValueError(
      '`window` must be at least 1 and `threshold` lie in [0, 1]; got '
      f'{window} and {threshold}.'
    )

  def init_fn(params):
    gated = _gated(params, pattern)
    if not gated:
      names = ', '.join(_gated(params, '.*'))
      raise ValueError(
        f'`pattern` {pattern!r} matches no leaf. The leaves are {names}.'
      )
    fill = lambda x: {
      name: jnp.full(p.shape, x, jnp.float32) for name, p in gated.items()
    }
    return Disorder(jnp.zeros([], jnp.int32), fill(0), fill(0), fill(1))

  def update_fn(updates, state, params=None, *, task=None, **extra):
    del params, extra
    if task is None:
      raise ValueError(
        'freeze_ordered needs the gradient of the task: call update(smooth, '
        'state, params, task=task), as `optim.two_gradients` gives both.'
      )
    passes = {n: d >= threshold for n, d in state.disorder.items()}

    def leaf(path, smooth, own):
      gate = passes.get(_name(path))
      if gate is not None:
        own = jnp.where(gate, own, jnp.zeros_like(own))
      return smooth + own

    added = jax.tree_util.tree_map_with_path(leaf, updates, task)
    return added, _counted(state, _gated(task, pattern), window)

  return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _counted(state: Disorder, task, window: int) -> Disorder:
  step = state.step + 1
  ends = step % window == 0
  sign, flips, disorder = {}, {}, {}
  for name, g in task.items():
    sign[name] = jnp.sign(g).astype(jnp.float32)
    # Before the first step there is no sign to differ from.
    flip = (sign[name] != state.sign[name]) & (state.step > 0)
    count = state.flips[name] + flip.astype(jnp.float32)
    share = count / jnp.float32(window)
    disorder[name] = jnp.where(ends, share, state.disorder[name])
    flips[name] = jnp.where(ends, jnp.zeros_like(count), count)
  return Disorder(step, sign, flips, disorder)


def _gated(tree, pattern: str) -> dict[str, jax.Array]:
  leaves = jax.tree_util.tree_leaves_with_path(tree)
  named = {_name(path): leaf for path, leaf in leaves}
  return {n: x for n, x in named.items() if re.fullmatch(pattern, n)}


def _name(path) -> str:
  return '/'.join(str(getattr(k, 'key', k)) for k in path)
