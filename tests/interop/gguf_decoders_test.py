"""Decoders from GGUF files: the same logits, and clear refusals."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lowbit.interop import gguf_decoders, gguf_file
from lowbit.models import rotary
from tests.interop import gguf_cases

TOKENS = jax.random.randint(
  jax.random.key(3), (2, 9), 0, gguf_cases.SIZES['vocab']
)
CASES = {
  'llama': {},
  'llama tied': dict(tied=True, rope_base=1e5, norm_eps=1e-6),
  'llama 3.1': dict(rope_factors=(1.0, 1.5, 4.0, 8.0)),
  'llama window': dict(window=4, qkv_bias=True, out_bias=True, mlp_bias=True),
  'qwen2': dict(qkv_bias=True, tied=True),
  'qwen3': dict(qk_norm=True),
}


@pytest.mark.parametrize('case', CASES)
def test_a_file_gives_the_model_that_was_written(tmp_path, case):
  model, params = gguf_cases.model(**CASES[case])
  path = tmp_path / 'm.gguf'
  gguf_cases.write(path, model, params, case.split()[0])
  found, loaded = gguf_decoders.load(gguf_file.GgufFile(path))
  chex.assert_trees_all_equal(loaded, params)
  near = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6)
  chex.assert_trees_all_close(
    found.apply({'params': loaded}, TOKENS),
    model.apply({'params': params}, TOKENS),
    atol=1e-5,
  )
  near(found.config.rope_base, model.config.rope_base)
  assert found.config.window == model.config.window


def interleaved(x, base):
  """Rotary positions of pairs (2 i, 2 i + 1), as llama.cpp turns them."""
  pairs = np.asarray(x, np.float64).reshape(*x.shape[:-1], -1, 2)
  half = pairs.shape[-2]
  angle = np.arange(x.shape[1])[:, None] * base ** (-np.arange(half) / half)
  turn = np.exp(1j * angle)[None, :, None]
  turned = (pairs[..., 0] + 1j * pairs[..., 1]) * turn
  return np.stack([turned.real, turned.imag], -1).reshape(x.shape)


def test_permuted_rows_under_interleaved_pairs_are_rotate_half():
  q, k = np.random.default_rng(0).standard_normal((2, 1, 6, 3, 8), np.float32)
  dots = lambda a, b: np.einsum('bthc,bshc->bhts', a, b)
  want = dots(*(np.asarray(rotary.rope(jnp.asarray(y), 1e4)) for y in (q, k)))
  rows = lambda y: gguf_cases.permuted(y.reshape(6, 24).T, 3).T.reshape(y.shape)
  got = dots(*(interleaved(rows(y), 1e4) for y in (q, k)))
  np.testing.assert_allclose(got, want, atol=1e-4)


SCALING = 'llama.rope.scaling.'
ROTARY = {
  'linear': (
    {f'{SCALING}type': 'linear', f'{SCALING}factor': 4.0},
    dict(rope_factors=(4.0,) * 4),
  ),
  'yarn': (
    {
      f'{SCALING}type': 'yarn',
      f'{SCALING}factor': 4.0,
      f'{SCALING}original_context_length': 64,
    },
    dict(
      rope_factors=rotary.yarn_factors(1e4, 8, 4.0, 64),
      rope_scale=rotary.yarn_scale(4.0),
    ),
  ),
  'yarn of the whole context': (
    {
      f'{SCALING}type': 'yarn',
      f'{SCALING}factor': 4.0,
      f'{SCALING}attn_factor': 0.5,
      f'{SCALING}yarn_beta_fast': 16.0,
      f'{SCALING}yarn_beta_slow': 2.0,
      'llama.context_length': 128,
    },
    dict(
      rope_factors=rotary.yarn_factors(1e4, 8, 4.0, 128, 16.0, 2.0),
      rope_scale=0.5 * rotary.yarn_scale(4.0),
    ),
  ),
  'none': ({f'{SCALING}type': 'none', f'{SCALING}factor': 4.0}, {}),
}


@pytest.mark.parametrize('case', ROTARY)
def test_rotary_scaling(tmp_path, case):
  fields, sizes = ROTARY[case]
  model, params = gguf_cases.model()
  path = gguf_cases.write(tmp_path / 'm.gguf', model, params, **fields)
  found = gguf_decoders.config(gguf_file.GgufFile(path))
  want = dataclasses.replace(model.config, **sizes, norm_eps=found.norm_eps)
  assert found == want


def test_factors_of_a_tensor_and_of_a_type_are_multiplied(tmp_path):
  model, params = gguf_cases.model(rope_factors=(1.0, 2.0, 4.0, 8.0))
  fields, _ = ROTARY['linear']
  path = gguf_cases.write(tmp_path / 'm.gguf', model, params, **fields)
  found = gguf_decoders.config(gguf_file.GgufFile(path))
  assert found.rope_factors == (4.0, 8.0, 16.0, 32.0)


REFUSED = {
  'missing .*blk.1.ffn_up.weight': dict(without=('blk.1.ffn_up.weight',)),
  'unknown .*blk.1': {'llama.block_count': 1},
  'claims 1000000 layers': {'llama.block_count': 1_000_000},
  'has the shape .* ask for': {'llama.feed_forward_length': 63},
  'must be a multiple': {'llama.attention.head_count_kv': 3},
  'keys and values differ': {'llama.attention.value_length': 4},
  'part of each head': {'llama.rope.dimension_count': 4},
  'experts': {'llama.expert_count': 8},
  "type 'longrope' .* none, linear and yarn": {
    'llama.rope.scaling.type': 'longrope'
  },
  'context_length .* at least 0': {'llama.rope.scaling.type': 'yarn'},
  'of at least 0': {'llama.embedding_length': 'wide'},
  'token_embd.weight of 2 axes': dict(without=('token_embd.weight',)),
}


@pytest.mark.parametrize('rule', REFUSED)
def test_what_does_not_fit_is_refused(tmp_path, rule):
  model, params = gguf_cases.model()
  changes = REFUSED[rule]
  path = gguf_cases.write(tmp_path / 'm.gguf', model, params, **changes)
  with pytest.raises(ValueError, match=rule):
    gguf_decoders.load(gguf_file.GgufFile(path))


def test_other_architectures_are_refused(tmp_path):
  model, params = gguf_cases.model()
  path = gguf_cases.write(tmp_path / 'm.gguf', model, params, 'mamba')
  with pytest.raises(ValueError, match="'mamba'; .* llama, qwen2, qwen3"):
    gguf_decoders.load(gguf_file.GgufFile(path))
