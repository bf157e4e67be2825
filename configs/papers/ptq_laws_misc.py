"""Precision in linear regression: floats keep the model size, integers do not.

Least squares on the first N coordinates of data with the spectrum i^-1.5, the
other coordinates being the noise of a smaller model. Inputs are rounded to
E5M1, whose error is relative, or to multiples of one step, whose error is
absolute, of the same mean square at the smallest N. A relative error adds the
same to the risk at every N; under an absolute one the coordinates below the
step are lost, a larger model gains nothing, and what it adds grows. The
ablation rounds absolutely in both places. Means over 12 draws.

Theory has random sketches of the data. They mix all coordinates, and rounding
the weights of such a model made no difference between the two here.
"""

import jax
import jax.numpy as jnp

import lowbit as lb
from lowbit.experiment import claims

DIMS, SAMPLES, DRAWS = 1024, 4096, 12
SIZES = (8, 64, 512)
SPECTRUM = jnp.arange(1.0, DIMS + 1) ** -1.5


def relative(x, step):
  del step
  return lb.fake_quantize(x, 'e5m1@tensor:unit')


def absolute(x, step):
  return jnp.round(x / step) * step


def plain(x, step):
  del step
  return x


def sample(key):
  """x [SAMPLES, DIMS] and y = sum of x."""
  x = jax.random.normal(key, (SAMPLES, DIMS)) * jnp.sqrt(SPECTRUM)
  return x, jnp.sum(x, axis=1)


def risk(train, test, size, rounding, step):
  """Mean squared error on other data, rounded alike."""
  q = rounding(train[0][:, :size], step)
  # Lost coordinates are columns of zeros.
  gram = q.T @ q + 1e-3 * jnp.eye(size)
  w = jnp.linalg.solve(gram, q.T @ train[1])
  off = rounding(test[0][:, :size], step) @ w - test[1]
  return float(jnp.mean(off**2))


def measure(seed, ablated):
  x, _ = sample(jax.random.key(seed))
  x = x[:, : SIZES[0]]
  mse = jnp.mean((relative(x, None) - x) ** 2)
  step = float(jnp.sqrt(12 * mse))  # Uniform errors of the same square.
  kinds = {'float': plain, 'rel': relative, 'abs': absolute}
  if ablated:
    kinds['rel'] = absolute
  found = {f'{name}{size}': 0.0 for name in kinds for size in SIZES}
  for draw in range(DRAWS):
    keys = jax.random.split(jax.random.key(seed * DRAWS + draw))
    train, test = map(sample, keys)
    for name, rounding in kinds.items():
      for size in SIZES:
        error = risk(train, test, size, rounding, step)
        found[f'{name}{size}'] += error / DRAWS
  extra = {
    f'{name}{size}_extra': found[f'{name}{size}'] - found[f'float{size}']
    for name in ('rel', 'abs')
    for size in SIZES
  }
  return {**found, **extra}


def get_claim():
  return claims.Claim(
    key='ptq_laws_misc',
    title='Precision laws in linear regression',
    reference='theory',
    recipe='Spec e5m1@tensor:unit; a fixed step',
    says='relative rounding adds a constant error, absolute rounding reduces '
    'the effective model size',
    published='excess risk saturates with N under absolute rounding alone',
    ablation='absolute rounding in place of relative',
    measure=measure,
    holds=lambda n: (
      n['rel512_extra'] < 2 * n['rel8_extra']
      and n['abs512_extra'] > 4 * n['abs8_extra']
      and n['abs512'] > 0.95 * n['abs64']
    ),
    show='risk at 8 / 64 / 512 coordinates: float {float8:.3f} / {float64:.3f} '
    '/ {float512:.3f}, relative {rel8:.3f} / {rel64:.3f} / {rel512:.3f}, '
    'absolute {abs8:.3f} / {abs64:.3f} / {abs512:.3f}',
    seeds=(0,),
  )
