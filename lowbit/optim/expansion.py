"""Numbers as unevaluated sums of two bfloat16.

The error of a rounded sum or product is itself a float, and can be kept. All
functions take and return bfloat16 arrays, and compute each operation in float32
with an explicit rounding behind it: sums, products, quotients and roots of
floats of so few bits are rounded once that way. `lax.reduce_precision` cannot
be cancelled, where XLA may drop a cast down and up again, and with it the very
error that is wanted.
"""

import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array


def rounder(dtype):
  """Returns x -> float32 x rounded to the grid of `dtype`."""
  info = jnp.finfo(dtype)
  if np.dtype(dtype) != jnp.bfloat16:
    raise TypeError(
      f'`dtype` must be bfloat16, got {np.dtype(dtype).name}. The errors of '
      'float16 underflow, and float32 sums of wider floats round twice.'
    )
  return lambda x: jax.lax.reduce_precision(x, info.nexp, info.nmant)


def widen(*arrays):
  """float32 copies, exact."""
  return tuple(a.astype(jnp.float32) for a in arrays)


def fast_two_sum(a: Array, b: Array) -> tuple[Array, Array]:
  """(s, e): s = fl(a + b), and s + e = a + b if |a| >= |b| (Dekker, 1971)."""
  r, dtype = rounder(a.dtype), a.dtype
  a, b = widen(a, b)
  s = r(a + b)
  e = r(b - r(s - a))
  return s.astype(dtype), e.astype(dtype)


def two_sum(a: Array, b: Array) -> tuple[Array, Array]:
  """(s, e): s = fl(a + b), s + e = a + b, for any a and b (Knuth)."""
  r, dtype = rounder(a.dtype), a.dtype
  a, b = widen(a, b)
  s = r(a + b)
  b_part = r(s - a)
  a_part = r(s - b_part)
  e = r(r(b - b_part) + r(a - a_part))
  return s.astype(dtype), e.astype(dtype)


def two_prod(a: Array, b: Array) -> tuple[Array, Array]:
  """(p, e): p = fl(a b), p + e = a b, if nothing underflows."""
  r, dtype = rounder(a.dtype), a.dtype
  a, b = widen(a, b)
  p = r(a * b)
  e = r(a * b - p)  # The product is exact in float32.
  return p.astype(dtype), e.astype(dtype)


def grow(lead: Array, rest: Array, x: Array) -> tuple[Array, Array]:
  """(lead, rest) + x, as two components again (Collage, arXiv:2405.03637).

  It assumes |lead| >= |x|: a larger x costs the exactness of `rest`.
  """
  r, dtype = rounder(lead.dtype), lead.dtype
  m, e, x = widen(lead, rest, x)
  s = r(m + x)
  e = r(e + r(x - r(s - m)))
  lead = r(s + e)
  rest = r(e - r(lead - s))
  return lead.astype(dtype), rest.astype(dtype)


def scale(
  lead: Array, rest: Array, factor: tuple[Array, Array]
) -> tuple[Array, Array]:
  """(lead, rest) times a scalar of two components."""
  r, dtype = rounder(lead.dtype), lead.dtype
  m, e, b, db = widen(lead, rest, *factor)
  p = r(m * b)
  low = r(r(r(e * b) + r(m * db)) + r(m * b - p))
  lead = r(p + low)
  rest = r(low - r(lead - p))
  return lead.astype(dtype), rest.astype(dtype)


def split(value, dtype) -> tuple[Array, Array]:
  """A scalar as two components: 0.999 is 1 - 0.00099945 in bfloat16."""
  r = rounder(dtype)
  value = jnp.asarray(value, jnp.float32)
  lead = r(value)
  return lead.astype(dtype), r(value - lead).astype(dtype)
