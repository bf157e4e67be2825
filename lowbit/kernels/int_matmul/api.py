"""int_matmul: integer products, exact in int32, with scales behind them."""

import functools
import importlib

import jax
import jax.numpy as jnp
import numpy as np

from lowbit import quantize
from lowbit.kernels import choice
from lowbit.kernels.int_matmul import parts as parts_lib
from lowbit.kernels.int_matmul import pieces, reference, xla

DTYPES = ('float32', 'bfloat16', 'float16', 'int32')


def int_matmul(
  x,
  w,
  *,
  dtype=jnp.float32,
  implementation: choice.Implementation = None,
  tiles=None,
  interpret: bool = False,
) -> jax.Array:
  """Quantized activations times quantized weights.

  The sums of codes are exact in int32 while K * max|x| * max|w| < 2^31, for
  example K < 131072 at 8 by 8 bits.

  Args:
    x: QTensor [M, K] of symmetric integers of at most 8 bits, with scales for
      rows ('int8@token') or groups of them; or a tuple of such along
      consecutive ranges of K, for mixed precision in one product.
    w: QTensor, PackedQTensor or `TwoStage` [K, N] of integers, quantized along
      axis -2 with scales for columns or groups of them, zero points below 8
      bits; or a tuple of such.
    dtype: float32, bfloat16 or float16; int32 for the bare sums of codes, of
      one part without groups.
    implementation: None for the best of the platform that the program is
      lowered for; 'tpu' and 'gpu' are Pallas kernels on int8 products.
    tiles: `tuned.Tiles` to use, for measurements.
    interpret: Runs a Pallas kernel as plain JAX, for tests on any machine.

  Returns:
    [M, N] of `dtype`.

  Raises:
    TypeError: If a part is no quantized tensor.
    ValueError: If shapes, formats or groups do not match, or the implementation
      cannot be: with all reasons.
  """
  dtype = np.dtype(dtype)
  if dtype.name not in DTYPES:
    raise ValueError(f'`dtype` must be one of {DTYPES}, got {dtype.name}.')
  parts = parts_lib.take_apart(x, w)
  if dtype == np.int32 and (len(parts) > 1 or parts[0].grouped):
    raise ValueError(
      '`dtype` int32 gives the bare sums of codes, which one part without '
      'groups has; got several parts, or groups along K.'
    )
  options = _candidates(dtype, tiles, interpret)
  choice.check('int_matmul', options, implementation, interpret, parts)
  if implementation is None:
    choice.warn_fallback('int_matmul', options, parts)
  return _run(parts, dtype, implementation, tiles, interpret)


@functools.partial(jax.jit, static_argnums=(1, 2, 3, 4))
def _run(parts, dtype, implementation, tiles, interpret):
  options = _candidates(dtype, tiles, interpret)
  return choice.run(options, implementation, parts)


def explain(x, w) -> dict[str, list[str]]:
  """For each implementation why it cannot take x and w; empty if it can."""
  parts = parts_lib.take_apart(x, w)
  return choice.explain(_candidates(np.dtype('float32'), None, False), parts)


def quantized_matmul(
  x: jax.Array,
  w,
  x_spec: quantize.Spec | str = 'int8@token',
  *,
  implementation: choice.Implementation = None,
  interpret: bool = False,
) -> jax.Array:
  """Quantizes x on the way and multiplies: [..., K] times w [K, N].

  Differentiable in x: straight through the quantization, and through the dense
  weights (of two-stage weights, the int8 ones that are multiplied).

  Args:
    x: Float array [..., K].
    w: As in `int_matmul`, one part.
    x_spec: How to quantize x along K.
    implementation: As in `int_matmul`.
    interpret: As in `int_matmul`.

  Returns:
    [..., N] in the dtype of x.
  """
  quantize.check_float(x)
  x_spec = quantize.Spec.parse(x_spec)
  rows = x.reshape(-1, x.shape[-1])
  y = _straight_through(rows, w, x_spec, implementation, interpret)
  return y.reshape(*x.shape[:-1], y.shape[-1])


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _straight_through(x, w, x_spec, implementation, interpret):
  options = _float_candidates(x.dtype, x_spec, interpret)
  choice.check('quantized_matmul', options, implementation, interpret, x, w)
  if implementation is None:
    choice.warn_fallback('quantized_matmul', options, x, w)
  return _run_floats(x, w, x_spec, implementation, interpret)


@functools.partial(jax.jit, static_argnums=(2, 3, 4))
def _run_floats(x, w, x_spec, implementation, interpret):
  options = _float_candidates(x.dtype, x_spec, interpret)
  return choice.run(options, implementation, x, w)


def _float_candidates(dtype, x_spec, interpret) -> tuple[choice.Candidate, ...]:
  """Candidates of (x, w), x float; a TPU's kernel quantizes rows itself."""
  apart = lambda x, w: parts_lib.take_apart(quantize.quantize(x, x_spec), w)
  by_row = quantize.Spec.parse('int8@token')
  fused = x_spec == by_row and dtype in (jnp.float32, jnp.bfloat16)

  def of(plain):
    def run(x, w):
      parts = apart(x, w)
      if fused and plain.name == 'tpu':  # XLA drops the codes, unused.
        parts = (_pallas('tpu').with_floats(parts[0], x),)
      return plain.run(parts)

    def reasons(x, w):
      return plain.reasons(jax.eval_shape(apart, x, w))

    return choice.Candidate(plain.name, run, reasons)

  return tuple(map(of, _candidates(np.dtype(dtype), None, interpret)))


def _forward(x, w, x_spec, implementation, interpret):
  y = _straight_through(x, w, x_spec, implementation, interpret)
  return y, (w, jnp.zeros((), x.dtype))


def _backward(x_spec, implementation, interpret, saved, dy):
  w, like = saved
  dx = jnp.matmul(dy.astype(jnp.float32), dense(w).T).astype(like.dtype)
  zeros = jax.tree.map(_no_gradient, w)
  return dx, zeros


_straight_through.defvjp(_forward, _backward)


def _no_gradient(a):
  """Zeros of the tangent type of a leaf."""
  if jnp.issubdtype(a.dtype, jnp.floating):
    return jnp.zeros_like(a)
  return np.zeros(a.shape, jax.dtypes.float0)


def dense(w) -> jax.Array:
  """The matrix that `w` stands for in the product, float32 [K, N]."""
  q = w.q if isinstance(w, parts_lib.TwoStage) else w
  q = quantize.unpack(q) if isinstance(q, quantize.PackedQTensor) else q
  values = quantize.dequantize(q)
  if isinstance(w, parts_lib.TwoStage):
    return jnp.clip(jnp.rint(values), -127.0, 127.0) * w.channel
  return values


def _pallas(name: str):
  return importlib.import_module(f'lowbit.kernels.int_matmul.pallas_{name}')


def _candidates(dtype, tiles, interpret) -> tuple[choice.Candidate, ...]:
  def kernel(name, parts, dtype):
    run = _pallas(name).int_matmul
    return run(parts, dtype, tiles=tiles, interpret=interpret)

  def on_gpu(parts):
    return _with_tails(functools.partial(kernel, 'gpu'), parts, dtype)

  def gpu_reasons(parts):
    whole, _ = jax.eval_shape(_cut, parts)
    if not whole:
      return ['K is less than a chunk']
    return _pallas('gpu').reasons(whole)

  return (
    choice.Candidate(
      'tpu',
      lambda parts: kernel('tpu', parts, dtype),
      lambda parts: _pallas('tpu').reasons(parts),
    ),
    choice.Candidate('gpu', on_gpu, gpu_reasons),
    choice.Candidate('xla', lambda parts: xla.int_matmul(parts, dtype)),
    choice.Candidate(
      'reference', lambda parts: reference.int_matmul(parts, dtype)
    ),
  )


def _cut(parts):
  """(parts in whole chunks, the rest of each): tuples."""
  whole, rest = [], []
  for part in parts:
    chunk = part.op.storage.chunk
    is_bytes = part.op.storage.widths == (8,)
    step = pieces.LEAST if is_bytes and part.size < chunk else chunk
    for group in (part.x_group, part.op.group):
      step = step if group >= part.size else int(np.lcm(step, group))
    at = part.size // step * step
    if at:
      whole.append(part.rows(0, at))
    if at < part.size:
      rest.append(part.rows(at, part.size))
  return tuple(whole), tuple(rest)


def _with_tails(kernel, parts, dtype) -> jax.Array:
  """A kernel on whole chunks, and XLA on what is left of each part."""
  whole, rest = _cut(parts)
  if not rest:
    return kernel(whole, dtype)
  bare = len(parts) == 1 and not parts[0].grouped
  between = jnp.int32 if bare else jnp.float32
  y = kernel(whole, between) + xla.int_matmul(rest, between)
  if bare and dtype != jnp.int32:  # One rounding, as if there were no tail.
    y = y.astype(jnp.float32) * parts[0].x_scale * parts[0].w_scale
  return y.astype(dtype)
