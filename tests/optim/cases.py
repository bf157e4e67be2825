"""Every transformation of `lowbit.optim`, once, on small parameters."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lowbit import optim

SMALL = {'min_size': 256}
EIGHT = optim.Moments('dynamic8@g64', 'udynamic8@g64', **SMALL)
FOUR = optim.Moments('dynamic4@g64', optim.RankOne('linear0_4'), **SMALL)
FACTORED = optim.Moments(
  'dynamic4@g64', optim.Factored(optim.Flat('linear0_4@g64')), **SMALL
)
NOISY = optim.Moments('int8@g64~stochastic', 'e5m2@g64', seed=0, **SMALL)
GRID = optim.StatsGrid(3)
EIGEN = functools.partial(
  optim.scale_by_shampoo,
  optim.Eigen(),
  statistics_every=2,
  roots_every=2,
  largest=24,
  min_size=256,
)
after = lambda tx: lambda rate: optax.chain(optax.sgd(rate, 0.9), tx)
moments = lambda make, m: functools.partial(make, moments=m)

# name -> learning rate -> transformation.
CASES = {
  'adam8bit': moments(optim.adam8bit, EIGHT),
  'adamw8bit': moments(optim.adamw8bit, EIGHT),
  'adamw8bit noisy': moments(optim.adamw8bit, NOISY),
  'adamw4bit': moments(optim.adamw4bit, FOUR),
  'adamw4bit factored': moments(optim.adamw4bit, FACTORED),
  'momentum8bit': moments(optim.momentum8bit, EIGHT),
  'lion8bit': moments(optim.lion8bit, EIGHT),
  'quantize_state': lambda rate: optim.quantize_state(
    optax.rmsprop(rate, momentum=0.9), EIGHT
  ),
  'skip_nonfinite': lambda rate: optim.skip_nonfinite(
    optim.adam8bit(rate, moments=EIGHT)
  ),
  'shampoo': lambda rate: optim.shampoo(optax.sgd(rate), largest=24),
  'shampoo4bit': lambda rate: optax.chain(EIGEN(), optax.sgd(rate)),
  'collage': optim.collage,
  'collage_light': optim.collage_light,
  'collage_plus': optim.collage_plus,
  'stochastic_weights': lambda rate: optax.chain(
    optax.sgd(rate), optim.stochastic_weights(0)
  ),
  'clip_weights': after(optim.clip_weights()),
  'interval_gradients': lambda rate: optax.chain(
    optim.interval_gradients(0), optax.sgd(rate)
  ),
  'prune_gradients': lambda rate: optax.chain(
    optim.prune_gradients(0), optax.sgd(rate)
  ),
  'track_diversity': lambda rate: optax.chain(
    optim.track_diversity(), optax.sgd(rate)
  ),
  'track_oscillation': after(optim.track_oscillation(GRID, threshold=0.02)),
  'freeze_confident': after(optim.freeze_confident(GRID, 0.2)),
  'damp_oscillation': lambda rate: optax.chain(
    optim.damp_oscillation(GRID, 0.1), optax.sgd(rate)
  ),
}


def narrow(name: str) -> bool:
  """Whether a case is for narrow parameters."""
  return name.startswith(('collage', 'stochastic'))


def params(name: str, seed: int = 0):
  """A matrix, a stack of matrices, a vector, a scalar."""
  rng = np.random.default_rng(seed)
  shapes = {'w': (32, 40), 'stack': (2, 16, 24), 'b': (16,), 's': ()}
  dtype = jnp.bfloat16 if narrow(name) else jnp.float32
  return {
    k: jnp.asarray(rng.normal(size=s).astype(np.float32)).astype(dtype)
    for k, s in shapes.items()
  }


def gradients(params, seed: int = 1):
  """Random gradients like the parameters."""
  rng = np.random.default_rng(seed)
  draw = lambda p: jnp.asarray(np.asarray(rng.normal(size=p.shape), np.float32))
  return jax.tree.map(draw, params)


def train(tx, p, steps: int = 2, update=None):
  """Parameters and state after some steps."""
  update = update or jax.jit(tx.update)
  state = jax.jit(tx.init)(p)
  for i in range(steps):
    u, state = update(gradients(p, i + 1), state, p)
    p = optim.apply_updates(p, u)
  return p, state
