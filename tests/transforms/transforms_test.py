import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lowbit import solvers, transforms
from lowbit.models import decoder
from lowbit.transforms import structure

CONFIG = decoder.DecoderConfig(
  vocab=40, width=48, layers=2, heads=4, kv_heads=2, head_dim=8, hidden=80
)
TOKENS = jax.random.randint(jax.random.key(0), (2, 12), 0, 40)


def model_and_params(**changes):
  model = decoder.Decoder(dataclasses.replace(CONFIG, **changes))
  params = model.init(jax.random.key(1), TOKENS)['params']
  noise = lambda p: p + 0.1 * jax.random.normal(jax.random.key(2), p.shape)
  return model, jax.tree.map(noise, params)


@pytest.mark.parametrize(
  'n', [n for n in range(1, 257) if transforms.hadamard.split_width(n)]
)
def test_every_hadamard_matrix_is_orthogonal(n):
  h = transforms.hadamard_matrix(n).astype(np.int64)
  assert set(np.unique(h)) <= {-1, 1}
  np.testing.assert_array_equal(h @ h.T, n * np.eye(n))


@pytest.mark.parametrize(
  'width, block',
  [(640, None), (256, None), (48, 12), (1024, None), (36, None), (8, 2)],
)
@pytest.mark.parametrize('seed', [None, 3])
def test_apply_is_the_matrix_and_inverse_undoes_it(width, block, seed):
  t = transforms.Hadamard(width, block, seed)
  x = jax.random.normal(jax.random.key(0), (3, 5, width))
  chex.assert_trees_all_close(t(x), x @ t.matrix(), atol=1e-4)
  chex.assert_trees_all_close(t.inverse(t(x)), x, atol=1e-5)
  eye = t.matrix() @ t.matrix().T
  chex.assert_trees_all_close(eye, jnp.eye(width), atol=1e-5)
  assert t(x.astype(jnp.bfloat16)).dtype == jnp.bfloat16


def test_widths_without_a_matrix_say_so():
  with pytest.raises(ValueError, match='Use block=2'):
    transforms.Hadamard(52 // 2)
  with pytest.raises(ValueError, match='does not divide'):
    transforms.Hadamard(64, 24)
  assert transforms.largest_block(52) == 4
  assert transforms.largest_block(640) == 640


def test_outliers_are_spread():
  x = jax.random.normal(jax.random.key(0), (512, 256)).at[:, 7].mul(50.0)
  kurtosis = lambda x: float(jnp.mean(x**4) / jnp.mean(x**2) ** 2)
  assert kurtosis(x) > 100
  assert kurtosis(transforms.Hadamard(256)(x)) < 4


def unchanged(model, params, other):
  want = model.apply({'params': params}, TOKENS)
  got = model.apply({'params': other}, TOKENS)
  moved = max(
    float(jnp.abs(a - b).max())
    for a, b in zip(
      jax.tree.leaves(params), jax.tree.leaves(other), strict=True
    )
  )
  assert moved > 1e-3, 'The transform did nothing.'
  chex.assert_trees_all_close(got, want, atol=2e-5 * float(jnp.abs(want).max()))


BIASES = dict(qkv_bias=True, out_bias=True, mlp_bias=True)


@pytest.mark.parametrize(
  'scan, changes', [(False, {}), (True, {}), (False, BIASES), (True, BIASES)]
)
def test_rewrites_leave_the_logits(scan, changes):
  model, params = model_and_params(**changes)
  if scan:
    model = decoder.Decoder(dataclasses.replace(model.config, scan_layers=True))
    params = decoder.stack(params)
  s = transforms.rmsnorm_decoder(params)
  folded = transforms.fold_norms(params, s)
  unchanged(model, params, folded)
  rotated = transforms.rotate_residual(
    folded, s, transforms.Hadamard(48, seed=0)
  )
  unchanged(model, params, rotated)
  up, down = s.pairs[0]
  hidden = structure.get(params, up).shape[-1]
  scale = 1 + jnp.arange(hidden, dtype=jnp.float32) / 9
  unchanged(model, params, transforms.fold_pair(params, up, down, scale))
  stats = {
    r: solvers.Statistics(
      *[
        jnp.exp(
          jnp.sin(
            jnp.arange(structure.get(params, r).shape[-2], dtype=jnp.float32)
          )
        )
      ]
      * 5
    )
    for _, readers in s.norms
    for r in readers
  }
  if scan:
    stats = {
      r: jax.tree.map(
        lambda a, r=r: jnp.broadcast_to(
          a, (*structure.get(params, r).shape[:-2], *a.shape)
        ),
        v,
      )
      for r, v in stats.items()
    }
  unchanged(model, params, transforms.smooth(params, s, stats, 0.5))


def test_rotation_needs_folded_norms_and_a_head():
  _, params = model_and_params()
  s = transforms.rmsnorm_decoder(params)
  with pytest.raises(ValueError, match='fold_norms'):
    transforms.rotate_residual(params, s, transforms.Hadamard(48))
  tied = {k: v for k, v in params.items() if k != 'head'}
  with pytest.raises(ValueError, match='untie'):
    transforms.rmsnorm_decoder(tied)
  assert transforms.rmsnorm_decoder(transforms.untie(tied)) == s
  with pytest.raises(ValueError, match='no RMSNorm decoder'):
    transforms.rmsnorm_decoder({'a': jnp.ones(3)})


def test_smoothing_formula():
  s = transforms.smooth_scale(
    jnp.asarray([4.0, 0.0, 9.0]), jnp.asarray([1.0, 2.0, 4.0]), 0.5
  )
  chex.assert_trees_all_close(s, jnp.asarray([2.0, 1.0, 1.5]))
  with pytest.raises(ValueError, match='alpha'):
    transforms.smooth_scale(s, s, 2.0)


def test_equalization_keeps_the_function_and_evens_the_ranges():
  k = jax.random.split(jax.random.key(0), 4)
  w1 = jax.random.normal(k[0], (6, 16)) * jnp.logspace(0, 2, 16)[None]
  b1, w2 = jax.random.normal(k[1], (16,)), jax.random.normal(k[2], (16, 5))
  x = jax.random.normal(k[3], (7, 6))
  f = lambda w1, b1, w2: jax.nn.relu(x @ w1 + b1[None]) @ w2
  v1, c1, v2 = transforms.equalize(w1, b1, w2)
  chex.assert_trees_all_close(
    f(v1, c1, v2), f(w1, b1, w2), rtol=1e-4, atol=1e-3
  )
  chex.assert_trees_all_close(jnp.abs(v1).max(0), jnp.abs(v2).max(1), rtol=1e-5)
