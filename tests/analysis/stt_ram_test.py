import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lowbit.analysis import stt_ram

W = jax.random.normal(jax.random.key(0), (100_000,)) * 0.05
WORDS = jnp.clip(W, -0.999, 0.999).astype(jnp.float16).view(jnp.uint16)


def test_counts_are_those_of_the_card():
  assert int(jnp.sum(WORDS & jnp.uint16(1 << 14))) == 0
  protected = stt_ram.protect_sign(WORDS)
  stored, _ = stt_ram.encode(protected)
  counts = [
    float(jnp.mean(stt_ram.soft_cells(w))) for w in (WORDS, protected, stored)
  ]
  np.testing.assert_allclose(counts, (4.56, 4.07, 2.63), atol=0.08)


def test_decoding_comes_back_but_for_the_nibble():
  stored, choice = stt_ram.encode(stt_ram.protect_sign(WORDS))
  back = stt_ram.restore_sign(stt_ram.decode(stored, choice))
  same = choice != 2
  np.testing.assert_array_equal(back[same], WORDS[same])
  lost = jnp.abs(back.astype(jnp.int32) - WORDS.astype(jnp.int32))
  assert int(jnp.max(lost)) <= 4  # 8 goes to 12
  assert 0 < float(jnp.mean(same)) < 1


def test_groups_share_a_choice():
  signed = stt_ram.protect_sign(WORDS[:4096])
  counts = []
  for group in (1, 2, 4, 8, 16):
    stored, choice = stt_ram.encode(signed, group)
    assert choice.shape == (4096 // group,)
    counts.append(float(jnp.mean(stt_ram.soft_cells(stored))))
    back = stt_ram.decode(stored, choice)
    same = jnp.repeat(choice, group) != 2
    np.testing.assert_array_equal(back[same], signed[same])
  assert counts == sorted(counts)  # Fewer choices leave more soft cells,
  assert counts[-1] < float(jnp.mean(stt_ram.soft_cells(signed)))
  with pytest.raises(ValueError, match='divide'):
    stt_ram.encode(signed[:9], 2)


def test_errors_strike_soft_cells_only_and_at_their_rate():
  hit = stt_ram.inject(WORDS, 0.02, jax.random.key(1)) ^ WORDS
  flipped = jax.lax.population_count(hit).astype(jnp.int32)
  rate = float(jnp.sum(flipped) / jnp.sum(stt_ram.soft_cells(WORDS)))
  np.testing.assert_allclose(rate, 0.02, rtol=0.05)  # 9000 errors: 5 sigma.
  all_hard = jnp.full(1000, 0xC3F0, jnp.uint16)
  np.testing.assert_array_equal(
    stt_ram.inject(all_hard, 1.0, jax.random.key(2)), all_hard
  )
