"""AdaPT's controller by the numbers of its card."""

import math

import numpy as np
import pytest

from lowbit.quantize import adaptive_fixed

RNG = np.random.default_rng(0)


def test_push_down_finds_the_grid_and_follows_scale():
  w = RNG.integers(-128, 128, 20_000) / 64  # On <8, 6>.
  word, fraction = adaptive_fixed.push_down(w)
  assert fraction <= 6
  assert word <= 8
  assert adaptive_fixed.divergence(w, 8, 6, 100) == pytest.approx(0, abs=1e-9)
  for k in (1, 3):
    assert adaptive_fixed.push_down(w / 2**k)[1] == fraction + k


def test_coarse_words_lose_information():
  w = RNG.normal(size=20_000)
  assert adaptive_fixed.divergence(w, 4, 1, 100) > 0.1
  word, fraction = adaptive_fixed.push_down(w)
  assert 4 < fraction < word <= 16


def test_diversity():
  g = RNG.normal(size=50)
  assert adaptive_fixed.diversity([g, 3 * g, g]) == pytest.approx(1)
  assert adaptive_fixed.diversity(list(np.eye(16))) == pytest.approx(4)


def test_push_up():
  # Agreeing gradients add one bit; 16 orthogonal ones 7 or max(5 - f, 0).
  assert adaptive_fixed.push_up(8, 4, 1.0, buffer=0) == (9, 5)
  t = math.log(4) - 1
  assert (math.ceil(1 / t**2), math.ceil(32 * t**2)) == (7, 5)
  up = lambda strategy: adaptive_fixed.push_up(8, 4, 4.0, strategy, 0)
  assert up('min') == (9, 5)
  assert up('max') == (12, 11)
  assert up('mean') == (9, 8)
  assert adaptive_fixed.push_up(8, 4, 4.0, 'max', 8) == (19, 11)
  assert adaptive_fixed.push_up(32, 30, 9.0, 'max', 8) == (32, 24)
  with pytest.raises(ValueError, match='strategy'):
    adaptive_fixed.push_up(8, 4, 1.0, 'most')


def test_the_format():
  assert adaptive_fixed.as_format(8, 4).name == 'fixed8_4'
