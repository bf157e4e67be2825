import itertools

import numpy as np
import pytest

from lowbit import allocation


def test_equals_brute_force():
  rng = np.random.default_rng(0)
  for _ in range(10):
    harm, cost = rng.random((6, 3)), rng.random((6, 3))
    budget = np.sort(cost, 1)[:, 1].sum()
    best = min(
      sum(harm[i, o] for i, o in enumerate(choice))
      for choice in itertools.product(range(3), repeat=6)
      if sum(cost[i, o] for i, o in enumerate(choice)) <= budget
      and choice[0] == choice[4]
    )
    got = allocation.choose(harm, [cost], [budget], ties=[(0, 4)])
    assert got[0] == got[4]
    np.testing.assert_allclose(harm[range(6), got].sum(), best)


def test_bad_input():
  with pytest.raises(ValueError, match='No choice meets'):
    allocation.choose(np.ones((2, 2)), [np.ones((2, 2))], [1.0])
  with pytest.raises(ValueError, match='like `harm`'):
    allocation.choose(np.ones((2, 2)), [np.ones((2, 3))], [1.0])
