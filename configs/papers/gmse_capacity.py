"""Compressed representations: what counts is the error on Gaussian data.

GMSE is the mean squared error of a representation of N(0, 1) at its best scale,
here by integration over a fine grid of quantiles, for formats and for keeping
the larger half of the weights. Its order is the order of what the
representations cost the embedded decoder, rounded after training, whatever they
are; the ablation ranks them by bits. (The paper trains, and finds noise of
equal error equally bad. After training it is not: Gaussian noise of the error
of int3 in each matrix cost .018 bits a byte, rounding .029.)
"""

import jax
import jax.numpy as jnp
import numpy as np
from scipy import optimize, stats

import lowbit as lb
from lowbit.data import embedded, text
from lowbit.experiment import claims, train
from lowbit.models import decoder

X = stats.norm.ppf((np.arange(200_000) + 0.5) / 200_000).astype(np.float32)
PUBLISHED = {'e2m1': 0.0126849, 'ternary': 0.190174, 'half': 0.0713}


def gmse(fmt: str) -> float:
  """Mean squared error of a format on N(0, 1) at its best scale."""
  fmt = lb.formats.get(fmt)
  error = lambda a: float(np.mean((X - a * np.asarray(fmt.round(X / a))) ** 2))
  scales = np.linspace(0.5, 4.5, 60) / fmt.max
  start = scales[np.argmin([error(np.float32(a)) for a in scales])]
  around = (0.9 * start, 1.1 * start)
  found = optimize.minimize_scalar(
    lambda a: error(np.float32(a)), bounds=around
  )
  return float(found.fun)


def weights(params, change):
  """Params with `change` of each matrix of a layer (not embedding, head)."""

  def one(path, w):
    name = jax.tree_util.keystr(path)
    return change(w) if 'layers' in name and w.ndim == 2 else w

  return jax.tree_util.tree_map_with_path(one, params)


def larger_half(w):
  """The weights of magnitude above the median; zeros for the others."""
  return jnp.where(jnp.abs(w) > jnp.median(jnp.abs(w)), w, 0.0)


# Bits of an element; the larger half is kept in 16, and their places in 1.
BITS = {'ternary': 1.58, 'int3': 3, 'e2m1': 4, 'int4': 4, 'half': 9, 'int6': 6}


def measure(seed, ablated):
  sizes, params = embedded.load()
  params = jax.tree.map(jnp.asarray, params)
  model = decoder.Decoder(sizes)
  rows = text.sample(text.load(), 'test', 16, 256)
  loss = lambda p: float(train.evaluate(model, p, rows).mean())
  keep = np.abs(X) > np.median(np.abs(X))
  errors = {k: gmse(k) for k in BITS if k != 'half'}
  errors['half'] = float(np.mean(np.where(keep, 0, X) ** 2))

  def change(kind, w):
    if kind == 'half':
      return larger_half(w)
    return lb.fake_quantize(w, f'{kind}@channel:mse', axis=0)

  start = loss(params)
  costs = {
    k: loss(weights(params, lambda w, k=k: change(k, w))) - start for k in BITS
  }
  order = [-BITS[k] if ablated else errors[k] for k in BITS]
  rank = stats.spearmanr(order, [costs[k] for k in BITS]).statistic
  return {
    **{f'gmse_{k}': v for k, v in errors.items()},
    **{f'cost_{k}': v for k, v in costs.items()},
    'rank': float(rank),
  }


def get_claim():
  return claims.Claim(
    key='gmse_capacity',
    title='Unified Scaling Laws for Compressed Representations',
    reference='arXiv:2506.01863',
    recipe='lowbit.formats; Spec int3@channel:mse',
    says='a representation is as good as its error on Gaussian data says, '
    'whatever it is',
    published='GMSE .01268 of E2M1, .1902 of ternary, .0713 of the larger half '
    '(closed form)',
    ablation='ranked by bits',
    measure=measure,
    holds=lambda n: (
      all(abs(n[f'gmse_{k}'] / v - 1) < 2e-3 for k, v in PUBLISHED.items())
      and n['rank'] > 0.9
    ),
    show='{gmse_e2m1:.5f} / {gmse_ternary:.4f} / {gmse_half:.4f}; rank '
    'correlation with the cost {rank:.2f} (ternary {cost_ternary:.2f}, half '
    '{cost_half:.3f}, int3 {cost_int3:.3f}, e2m1 {cost_e2m1:.4f}, int4 '
    '{cost_int4:.4f}, int6 {cost_int6:.4f} bits a byte)',
    seeds=(0,),
    fast=False,
  )
