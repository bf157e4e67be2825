"""Fits of scaling laws: Huber loss of log residuals, many starts, intervals.

Hoffmann et al., 2022 (arXiv:2203.15556) minimize it by L-BFGS from a grid of
starts. So does this, with two changes that find deeper basins: coordinates are
scaled by the Gauss-Newton Hessian between rounds, as terms and exponents are
nearly collinear, and only promising starts are followed to the end.
"""

import dataclasses
import functools
import itertools
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from scipy import optimize

from lowbit.analysis import laws

DELTA = 1e-3  # Where the Huber loss turns linear, in log units.
_ROUNDS = 5


@dataclasses.dataclass(frozen=True)
class Fit:
  """A law with the coefficients that fit some points best."""

  law: laws.Law
  coefficients: dict[str, float]  # Held ones included.
  cost: float  # Sum of Huber losses of log residuals.
  second: float  # The same of the next best basin; inf if there is none.
  residuals: np.ndarray  # log(target / prediction), [n].

  def predict(self, **inputs) -> np.ndarray:
    """See `laws.Law.predict`."""
    return self.law.predict(self.coefficients, **inputs)


def huber(residuals, delta: float):
  """r^2 / 2 up to `delta`, then linear: elementwise."""
  size = jnp.abs(residuals)
  inside = jnp.minimum(size, delta)
  return inside * (size - 0.5 * inside)


@dataclasses.dataclass(frozen=True)
class _Problem:
  """A law over free coefficients u: logarithms of the positive ones."""

  law: laws.Law
  held: tuple[tuple[str, float], ...]
  delta: float

  @property
  def free(self) -> tuple[str, ...]:
    held = dict(self.held)
    return tuple(c for c in self.law.coefficients if c not in held)

  def encode(self, coefficients) -> np.ndarray:
    return np.array(
      [
        np.log(coefficients[c]) if c in self.law.positive else coefficients[c]
        for c in self.free
      ]
    )

  def decode(self, u):
    exp = lambda c, v: jnp.exp(v) if c in self.law.positive else v
    return {c: exp(c, u[i]) for i, c in enumerate(self.free)} | dict(self.held)

  def residuals(self, u, inputs, target):
    value = self.law.value(self.decode(u), inputs)
    return jnp.log(target) - jnp.log(value)

  def cost(self, u, inputs, target, weights):
    r = self.residuals(u, inputs, target)
    return jnp.sum(weights * huber(r, self.delta)) / self.delta**2


@functools.partial(jax.jit, static_argnums=0)
def _costs(problem, starts, inputs, target, weights):
  one = lambda u: problem.cost(u, inputs, target, weights)
  return jax.lax.map(one, starts)


@functools.partial(jax.jit, static_argnums=0)
def _scaled(problem, z, u, scale, *data):
  """(cost, gradient) at u + scale z."""
  return jax.value_and_grad(lambda z: problem.cost(u + scale @ z, *data))(z)


@functools.partial(jax.jit, static_argnums=0)
def _jacobian(problem, u, inputs, target, weights):
  j = jax.jacfwd(problem.residuals)(u, inputs, target)
  r = problem.residuals(u, inputs, target)
  # The Huber loss counts a far point by delta / |r|.
  w = weights * jnp.minimum(1.0, problem.delta / jnp.maximum(jnp.abs(r), 1e-12))
  return jnp.sqrt(w)[:, None] * j / problem.delta


def _polish(
  problem, u, *data, rounds=_ROUNDS, steps=300
) -> tuple[float, np.ndarray]:
  """L-BFGS in coordinates in which all directions are alike."""
  best = np.inf
  for _ in range(rounds):
    j = np.asarray(_jacobian(problem, u, *data))
    if not np.all(np.isfinite(j)):
      break
    _, s, v = np.linalg.svd(j, full_matrices=False)
    scale = v.T / np.maximum(s, max(s[0] * 1e-6, 1e-12))
    result = optimize.minimize(
      lambda z, u=u, scale=scale: [
        np.nan_to_num(np.asarray(a), nan=1e30, posinf=1e30)
        for a in _scaled(problem, z, u, scale, *data)
      ],
      np.zeros(len(u)),
      jac=True,
      method='L-BFGS-B',
      bounds=[(-1e3, 1e3)] * len(u),
      options=dict(maxiter=steps, ftol=1e-13, gtol=1e-9),
    )
    u = u + scale @ result.x
    gain, best = best - result.fun, float(result.fun)
    if gain < 1e-9 * best:
      break
  return best, u


def fit(
  law: laws.Law,
  inputs: Mapping[str, np.ndarray],
  target: np.ndarray,
  *,
  held: Mapping[str, float] | None = None,
  starts: Mapping[str, tuple[float, ...]] | None = None,
  delta: float = DELTA,
  followed: int = 8,
) -> Fit:
  """The coefficients of least Huber loss.

  Args:
    law: What is fitted.
    inputs: Array [n] of each of law.inputs.
    target: What was measured, [n], positive.
    held: Coefficients that are not fitted; law.held are, unless given here.
    starts: In place of law.starts, for some coefficients.
    delta: Where the Huber loss turns linear.
    followed: How many starts are followed to the end: of the 4 times as many
      of least cost, those that are best after a few steps.

  Raises:
    ValueError: If there are fewer points than free coefficients, a target is
      not positive and finite, or a name is unknown.
  """
  problem = _problem(law, held, delta)
  inputs, target = _points(law, inputs, target, len(problem.free))
  values = {**law.starts, **(starts or {})}
  grid = [
    problem.encode(dict(zip(problem.free, point)))
    for point in itertools.product(*(values[c] for c in problem.free))
  ]
  with jax.enable_x64(True):
    data = jax.tree.map(jnp.asarray, (inputs, target, np.ones(len(target))))
    costs = np.asarray(_costs(problem, np.stack(grid), *data))
    order = np.argsort(np.where(np.isfinite(costs), costs, np.inf))
    # A good basin shows after a few steps, rarely at the start itself.
    ends = [
      _polish(problem, grid[i], *data, rounds=2, steps=10)
      for i in order[: 4 * followed]
    ]
    ends.sort(key=lambda end: end[0])
    ends = [_polish(problem, u, *data) for _, u in ends[:followed]]
    ends.sort(key=lambda end: end[0])
    best, u = ends[0]
    others = [c for c, _ in ends if c > best * 1.001 + 1e-9]
    residuals = np.asarray(problem.residuals(u, inputs, target))
    found = {c: float(v) for c, v in problem.decode(u).items()}
  scale = delta**2
  second = scale * others[0] if others else np.inf
  return Fit(law, found, scale * best, second, residuals)


def _problem(law, held, delta) -> _Problem:
  held = {**law.held, **(held or {})}
  unknown = sorted(set(held) - set(law.coefficients))
  if unknown:
    raise ValueError(
      f'`held` names {unknown}; the coefficients of law {law.name!r} are '
      f'{law.coefficients}.'
    )
  return _Problem(law, tuple(held.items()), delta)


def _points(law, inputs, target, free: int):
  target = np.atleast_1d(np.asarray(target, np.float64))
  inputs = laws.check_inputs(law, inputs)
  inputs = {k: np.broadcast_to(v, target.shape) for k, v in inputs.items()}
  if len(target) < free:
    raise ValueError(
      f'Law {law.name!r} has {free} coefficients to fit, and there are '
      f'{len(target)} points. Give more runs, or hold some coefficients.'
    )
  if not (np.all(np.isfinite(target)) and np.all(target > 0)):
    raise ValueError(
      f'`target` {law.target} must be positive and finite, got '
      f'{target[~(target > 0)][:5]}. Leave such runs out, by name.'
    )
  return inputs, target


def bootstrap(
  found: Fit,
  inputs: Mapping[str, np.ndarray],
  target: np.ndarray,
  *,
  held: Mapping[str, float] | None = None,
  delta: float = DELTA,
  count: int = 100,
  seed: int = 0,
  level: float = 0.95,
) -> dict[str, tuple[float, float]]:
  """Percentile intervals of the coefficients, runs drawn with replacement.

  Each draw is fitted from the coefficients of all runs, so that the intervals
  are those of one basin.

  Args:
    found: The fit of all points.
    inputs, target, held, delta: As `fit` had them.
    count: Draws.
    seed: Of the draws.
    level: Coverage.

  Returns:
    Free coefficient -> (low, high).
  """
  problem = _problem(found.law, held, delta)
  inputs, target = _points(found.law, inputs, target, len(problem.free))
  start = problem.encode(found.coefficients)
  rng = np.random.default_rng(seed)
  draws, n = [], len(target)
  with jax.enable_x64(True):
    inputs, target = jax.tree.map(jnp.asarray, (inputs, target))
    for _ in range(count):
      weights = np.bincount(rng.integers(n, size=n), minlength=n).astype(float)
      _, u = _polish(problem, start, inputs, target, jnp.asarray(weights))
      draws.append([float(problem.decode(u)[c]) for c in problem.free])
  tail = (1 - level) / 2
  low, high = np.quantile(draws, [tail, 1 - tail], axis=0)
  return {c: (low[i], high[i]) for i, c in enumerate(problem.free)}


def held_out_error(
  law: laws.Law,
  inputs: Mapping[str, np.ndarray],
  target: np.ndarray,
  out: np.ndarray,
  **options,
) -> np.ndarray:
  """log(target / prediction) of points that the fit did not see.

  Args:
    law: What is fitted.
    inputs: Arrays [n].
    target: [n].
    out: bool [n], the points that are held out, such as the largest models.
    **options: Of `fit`.

  Returns:
    float64 [sum(out)].
  """
  inputs = {k: np.asarray(v) for k, v in inputs.items()}
  target = np.asarray(target)
  pick = lambda mask: {k: v[mask] for k, v in inputs.items()}
  found = fit(law, pick(~out), target[~out], **options)
  return np.log(target[out]) - np.log(found.predict(**pick(out)))


def r_squared(target: np.ndarray, prediction: np.ndarray) -> float:
  """1 - squared error / variance; give penalties, as totals hide them."""
  target = np.asarray(target, np.float64)
  error = np.sum((target - prediction) ** 2)
  return float(1 - error / np.sum((target - target.mean()) ** 2))
