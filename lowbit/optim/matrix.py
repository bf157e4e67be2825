"""Orthonormal vectors and inverse roots of symmetric matrices, in float32."""

import jax
import jax.numpy as jnp


def bjorck(v: jax.Array, steps: int) -> jax.Array:
  """V <- 1.5 V - 0.5 V V^T V: the orthogonal matrix near v [n, n].

  Converges quadratically from singular values below sqrt(3). Bjorck and Bowie,
  1971.
  """
  for _ in range(steps):
    v = 1.5 * v - 0.5 * v @ (v.T @ v)
  return v


def eigen_step(a: jax.Array, v: jax.Array) -> tuple[jax.Array, jax.Array]:
  """(eigenvalues [n], vectors [n, n]) of `a` after one orthogonal iteration.

  P = qr(a v), values diag(P^T a P): a warm start in place of a decomposition.
  """
  p, _ = jnp.linalg.qr(a @ v)
  return jnp.sum(p * (a @ p), axis=0), p


def eigen_power(
  values: jax.Array, v: jax.Array, power: float, ridge: float
) -> jax.Array:
  """V (L + max(L) ridge)^power V^T."""
  values = jnp.maximum(values, 0.0)
  values = values + jnp.max(values) * ridge
  return (v * (values**power)[None]) @ v.T


def largest_eigenvalue(a: jax.Array, steps: int = 10) -> jax.Array:
  """Of a symmetric positive matrix, from below, by power iterations."""
  n = a.shape[0]
  start = jnp.ones((n,)) / jnp.sqrt(jnp.float32(n))

  def step(_, v):
    v = a @ v
    norm = jnp.linalg.norm(v)
    return v / jnp.where(norm == 0, 1.0, norm)

  v = jax.lax.fori_loop(0, steps, step, start)
  return v @ (a @ v)


def inverse_root(
  a: jax.Array, p: int, ridge: float = 1e-6, steps: int = 25
) -> jax.Array:
  """(a + lambda_max ridge I)^(-1/p) by the coupled Newton iteration.

  With G the matrix in brackets, z = (1 + p) / (2 |G|), X = z^(1/p) I, M = z G,
  repeat T = (1 + 1/p) I - M / p, X <- X T, M <- T^p M, until M is I to 1e-6, or
  its error grows by 1.2, when the last X is kept. Each step lifts small
  eigenvalues by (1 + 1/p)^p: condition 1e6 takes 16 steps for p = 4 (released
  code of Shampoo stops after 10).
  """
  eye = jnp.eye(a.shape[0])
  g = a + largest_eigenvalue(a) * ridge * eye
  norm = jnp.linalg.norm(g)
  z = (1 + p) / (2 * jnp.where(norm == 0, 1.0, norm))
  error = lambda m: jnp.max(jnp.abs(m - eye))

  def go_on(carry):
    i, _, m, last = carry
    return (i < steps) & (last > 1e-6) & jnp.all(jnp.isfinite(m))

  def step(carry):
    i, x, m, last = carry
    t = (1 + 1 / p) * eye - m / p
    new_x, new_m = x @ t, jnp.linalg.matrix_power(t, p) @ m
    now = error(new_m)
    worse = ~(now <= 1.2 * last)
    return (
      jnp.where(worse, steps, i + 1),
      jnp.where(worse, x, new_x),
      jnp.where(worse, m, new_m),
      jnp.where(worse, last, now),
    )

  m = z * g
  carry = (jnp.int32(0), z ** (1 / p) * eye, m, error(m))
  return jax.lax.while_loop(go_on, step, carry)[1]
