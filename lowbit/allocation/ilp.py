"""Integer linear program: the options of least total harm within budgets."""

from collections.abc import Sequence

import numpy as np


def choose(
  harm: np.ndarray,
  costs: Sequence[np.ndarray],
  budgets: Sequence[float],
  ties: Sequence[Sequence[int]] = (),
) -> np.ndarray:
  """Minimises sum_i harm[i, o_i] with sum_i cost[i, o_i] <= budget for each.

  Solved to optimality by HiGHS (`scipy.optimize.milp`). With harm = Tr(H_i) /
  n_i |Q_b(W_i) - W_i|^2 this is the allocation of Yao et al., HAWQV3, 2020
  (arXiv:2011.10680).

  Args:
    harm: Float [layers, options].
    costs: Arrays [layers, options]: size, operations, latency, ...
    budgets: One limit for each of `costs`.
    ties: Groups of layers that take the same option.

  Returns:
    int [layers], the option of each layer.

  Raises:
    ValueError: If shapes do not fit or no choice meets the budgets.
  """
  from scipy import optimize

  harm = np.asarray(harm, np.float64)
  costs = [np.asarray(c, np.float64) for c in costs]
  if any(c.shape != harm.shape for c in costs) or len(costs) != len(budgets):
    raise ValueError(
      f'Each of `costs` must be like `harm` {harm.shape}, with one budget '
      f'each; got {[c.shape for c in costs]} and {len(budgets)} budgets.'
    )
  layers, options = harm.shape
  # x[i, o] in {0, 1}; each layer takes one option.
  one = np.kron(np.eye(layers), np.ones(options))
  limits = [optimize.LinearConstraint(one, 1, 1)]
  limits += [
    optimize.LinearConstraint(c.reshape(1, -1), ub=b)
    for c, b in zip(costs, budgets)
  ]
  limits += [_tie(a, b, layers, options) for a, b in _pairs(ties)]
  found = optimize.milp(
    harm.reshape(-1),
    constraints=limits,
    integrality=np.ones(harm.size),
    bounds=optimize.Bounds(0, 1),
  )
  if found.x is None:
    least = [float(c.min(1).sum()) for c in costs]
    raise ValueError(
      f'No choice meets `budgets` {list(budgets)}; the cheapest costs {least}.'
    )
  return found.x.reshape(harm.shape).argmax(1)


def _pairs(ties):
  return [(group[0], other) for group in ties for other in group[1:]]


def _tie(a: int, b: int, layers: int, options: int):
  """x[a, :] = x[b, :]."""
  from scipy import optimize

  rows = np.zeros((options, layers, options))
  rows[range(options), a, range(options)] = 1
  rows[range(options), b, range(options)] = -1
  return optimize.LinearConstraint(rows.reshape(options, -1), 0, 0)
