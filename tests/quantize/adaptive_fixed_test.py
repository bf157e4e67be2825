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


def test_the_controller():
  controller = adaptive_fixed.Controller((20, 100), (50, 150), 0.5, 1e-3, 4)
  layer = controller.start(4, 3)
  assert layer == (4, 3, 20, 100)
  w = RNG.integers(-128, 128, 20_000) / 64
  # Agreeing gradients: wanted are 100 steps, halfway is 60; neither bound.
  got = controller.decide(layer, w, 1.0, 'max')
  fewest = adaptive_fixed.push_down(w, 100, 1e-3)
  assert got[:2] == adaptive_fixed.push_up(*fewest, 1.0, 'max', 4)
  assert got[2:] == (60, 100)
  # Those that cancel or disagree: the shortest lookback, coarser bins.
  assert controller.decide(layer, w, math.inf, 'min')[2:] == (20, 99)
  assert controller.decide(layer, w, 9.0, 'min')[2:] == (20, 99)
  long = layer._replace(lookback=100, bins=150)
  assert controller.decide(long, w, 1.0, 'min')[2:] == (100, 150)
  more = controller.decide(layer, w, 6.0, 'max')
  assert more.fraction > controller.decide(layer, w, 6.0, 'min').fraction


def test_bits_come_back_where_the_loss_stalls():
  follow = adaptive_fixed.next_strategy
  assert follow('max', 2.0, 1.0) == 'min'
  assert follow('min', 1.0, 1.0) == 'mean'
  assert follow('mean', 1.0, 2.0) == 'max'
  assert follow('max', 1.0, 2.0) == 'max'
  with pytest.raises(ValueError, match='strategy'):
    follow('most', 1.0, 2.0)
