"""Collage: AdamW in bfloat16 with a second component follows float32 AdamW.

An MLP learns the embedded digits in 1000 steps at learning rate 1e-4, weights,
gradients and moments in bfloat16. Measured: the share of the last updates that
arrives (effective descent quality over |update|, of the sum of components), and
the loss over that of float32 AdamW with the same data. The ablation keeps one
component of each.
"""

import jax
import jax.numpy as jnp
import optax

from lowbit import optim
from lowbit.data import digits
from lowbit.experiment import claims, fit
from lowbit.models import classifiers

RATE = 1e-4


def problem(seed):
  data = digits.load()
  model = classifiers.MLP((128, 128))
  arrays = jnp.asarray(data.train_images), jnp.asarray(data.train_labels)
  params = model.init(jax.random.key(seed), arrays[0][:1])['params']

  def loss(params, minibatch, step, key):
    del step, key
    images, labels = minibatch
    params = jax.tree.map(lambda p: p.astype(jnp.float32), params)
    return fit.cross_entropy(model.apply({'params': params}, images), labels)

  return loss, params, arrays


def narrow(params):
  return jax.tree.map(lambda p: p.astype(jnp.bfloat16), params)


def arriving(components, params, state, grads):
  """The share of one more update that arrives."""
  tx = optim.collage(
    RATE, weights=components, second_moment=components, weight_decay=0.0
  )
  whole = lambda p, s: jax.tree.map(
    lambda a, b: a.astype(jnp.float32) + b.astype(jnp.float32),
    p,
    s.rest if components else optax.tree.zeros_like(p),
  )
  updates, after = tx.update(grads, state, params)
  intended = jax.tree.map(
    lambda m, v: (
      -RATE * m.astype(jnp.float32) / (jnp.sqrt(v.astype(jnp.float32)) + 1e-8)
    ),
    after.mu,
    after.nu,
  )
  new = whole(optim.apply_updates(params, updates), after)
  before = whole(params, state)
  return float(optim.effective_descent(intended, before, new))


def measure(seed, ablated):
  loss, params, arrays = problem(seed)
  exact = fit.fit(
    loss, params, arrays, optax.adamw(RATE, weight_decay=0.0), 1000, 64, seed
  )
  on = not ablated
  tx = optim.collage(RATE, weights=on, second_moment=on, weight_decay=0.0)
  mine = fit.fit(loss, narrow(params), arrays, tx, 1000, 64, seed)
  final = lambda fitted: float(loss(fitted.variables, arrays, 0, None))
  grads = jax.grad(loss)(mine.variables, arrays, 0, None)
  state = tx.init(mine.variables)._replace(count=jnp.int32(100_000))
  for _ in range(100):  # Moments of the gradient at the end.
    _, state = tx.update(grads, state, mine.variables)
  state = state._replace(
    rest=optax.tree.zeros_like(mine.variables) if on else ()
  )
  return {
    'arrives': arriving(on, mine.variables, state, grads),
    'ratio': final(mine) / final(exact),
  }


def get_claim():
  return claims.Claim(
    key='collage',
    title='Collage',
    reference='arXiv:2405.03637',
    recipe='optim.collage_plus',
    says='two bfloat16 components train like float32 weights',
    published='quality of float32 master weights at 12 bytes a parameter',
    ablation='one component of weights and second moment',
    measure=measure,
    holds=lambda n: n['arrives'] > 0.95 and 0.95 < n['ratio'] < 1.05,
    show='{arrives:.1%} of an update arrives, loss {ratio:.3g} x float32',
  )
