"""What the suite `matmul` runs: every kernel, with its operands."""

import dataclasses
import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from lowbit import kernels, quantize
from lowbit.kernels import (
  bitplane_matmul,
  grouped_matmul,
  hadamard,
  int_matmul,
  lut_matmul,
  quantize_rows,
  ternary_matmul,
)

EXPERTS = 8
OUTLIERS = 128  # Input channels in 8 bits, as Atom keeps them.


def _itself(x):
  return x


def product_flops(m: int, k: int, n: int) -> float:
  """Of a dense product."""
  return 2 * m * k * n


@dataclasses.dataclass(frozen=True)
class Case:
  """One kernel on operands of [M, K] by [K, N], K = N."""

  name: str
  run: Callable  # (x, w) -> y.
  x: Callable = _itself  # Float [M, K] -> operand; not timed.
  w: Callable = _itself  # Float [K, N] -> operand; not timed.
  flops: Callable = product_flops
  read: Callable = lambda m: 1.0  # The share of w that m rows must read.
  has_weight: bool = True

  def operands(self, x, w):
    """(x, w) as `run` takes them; w is None without a weight."""
    return self.x(x), self.w(w) if self.has_weight else None


def _packed(spec: str):
  return lambda w: quantize.pack(quantize.quantize(w, spec, axis=-2))


def _rounded(spec: str):
  return lambda x: quantize.quantize(x, spec)


def dequant(spec: str) -> Case:
  """Float activations times packed weights."""
  return Case(spec, kernels.dequant_matmul, w=_packed(spec))


def integers(name: str, x_spec: str, w_spec: str, two_stage=False) -> Case:
  """Integer products; activations come quantized."""
  pack = _packed(w_spec)
  weight = (lambda w: int_matmul.two_stage(pack(w))) if two_stage else pack
  run = functools.partial(int_matmul.int_matmul, dtype=jnp.bfloat16)
  return Case(name, run, _rounded(x_spec), weight)


def _mixed() -> Case:
  """4 bits for most input channels, 8 for a few, in one call."""
  split = lambda a, axis: jnp.split(a, [a.shape[axis] - OUTLIERS], axis)

  def x_parts(x):
    bulk, rest = split(x, 1)
    return _rounded('int4@g128')(bulk), _rounded('int8@token')(rest)

  def w_parts(w):
    bulk, rest = split(w, 0)
    return _packed('int4@g128')(bulk), _packed('int8@channel')(rest)

  run = functools.partial(int_matmul.int_matmul, dtype=jnp.bfloat16)
  return Case('w4a4 with 128 w8a8', run, x_parts, w_parts)


def _planes(x_bits: int, w_bits: int) -> Case:
  coding = bitplane_matmul.Coding

  def codes(a, bits):
    most = 2 ** (bits - 1) - 1
    return jnp.clip(jnp.round(a), -most, most).astype(jnp.int32)

  x = lambda x: bitplane_matmul.pack_planes(
    codes(x, x_bits), coding.signed(x_bits), -1
  )
  w = lambda w: bitplane_matmul.pack_planes(
    codes(w, w_bits), coding.signed(w_bits), -2
  )
  name = f'planes w{w_bits}a{x_bits}'
  return Case(name, bitplane_matmul.bitplane_matmul, x, w)


def _experts(spec: str) -> Case:
  """As many weights as the others, in narrow experts."""

  def run(x, w):
    m = x.shape[0]
    sizes = [m // EXPERTS + (i < m % EXPERTS) for i in range(EXPERTS)]
    return grouped_matmul.grouped_matmul(x, w, jnp.asarray(sizes, jnp.int32))

  def weights(w):
    k, n = w.shape
    apart = w.reshape(k, EXPERTS, n // EXPERTS)
    return _packed(spec)(jnp.moveaxis(apart, 1, 0))

  return Case(
    f'experts {spec}',
    run,
    w=weights,
    flops=lambda m, k, n: 2 * m * k * n // EXPERTS,
    read=lambda m: min(m, EXPERTS) / EXPERTS,
  )


def _two_bit() -> Case:
  table = tuple(float((w - 2) * a) for w in range(4) for a in range(4))
  code = lambda a: (jnp.abs(jnp.round(2 * a)).astype(jnp.uint8)) & 3
  words = lambda w: quantize.packing.pack_codes(code(w).T, 2).T
  run = lambda x, w: lut_matmul.lut_gemm_2bit(x, w, table)
  return Case('lookup gemm w2a2', run, code, words)


def _alone(name: str, run: Callable, flops: Callable) -> Case:
  """A kernel of activations alone."""
  return Case(name, lambda x, w: run(x), flops=flops, has_weight=False)


def _butterflies(m, k, n) -> float:
  return m * k * math.log2(k)


WEIGHTS = (
  'int8@channel',
  'mxfp6_e2m3',
  'int4@channel',
  'int4@g128',
  'int4z@g128',
  'nf4@g64',
  'mxfp4',
  'nvfp4',
  'int3@g128',
  'int2@g128',
  'ternary@channel',
  'int1@g128',
)
CASES = (
  *map(dequant, WEIGHTS),
  integers('w8a8', 'int8@token', 'int8@channel'),
  integers('w4a8', 'int8@token', 'int4@channel'),
  integers('w4a8 g128 in two stages', 'int8@token', 'int4@g128', True),
  integers('w4a4 g128', 'int4@g128', 'int4@g128'),
  _mixed(),
  _planes(4, 2),
  Case('bitnet 1.6', ternary_matmul.ternary_matmul, w=ternary_matmul.absmean),
  Case(
    'lookup int2@g128',
    lut_matmul.lut_matmul,
    w=lambda w: lut_matmul.lut_weight(
      quantize.quantize(w, 'int2@g128', axis=-2)
    ),
  ),
  _two_bit(),
  _experts('int4@g128'),
  _alone('hadamard', hadamard.hadamard, _butterflies),
  _alone('hadamard to int8', hadamard.hadamard_quantize, _butterflies),
  _alone('int8@token', quantize_rows.quantize_rows, lambda m, k, n: 3 * m * k),
)


def shapes(case: Case, m: int, size: int):
  """Operands of a case as `jax.ShapeDtypeStruct`s, from bfloat16."""
  of = lambda *shape: jax.ShapeDtypeStruct(shape, jnp.bfloat16)
  return jax.eval_shape(case.operands, of(m, size), of(size, size))
