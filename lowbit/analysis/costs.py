"""Cost models: energy and area of operations, FPGA logic, decoding weights.

Proxies to rank formats by, not measurements of a machine.
"""

import dataclasses

# (energy in pJ, area in um^2) at 45 nm and 0.9 V, as published by Horowitz,
# Computing's Energy Problem, ISSCC 2014, and used by Gholami et al., 2021
# (arXiv:2103.13630): an INT8 addition takes a 30th of the energy and a 116th of
# the area of an FP32 addition.
OPERATIONS = {
  ('add', 'int8'): (0.03, 36.0),
  ('add', 'int16'): (0.05, 67.0),
  ('add', 'int32'): (0.1, 137.0),
  ('add', 'fp16'): (0.4, 1360.0),
  ('add', 'fp32'): (0.9, 4184.0),
  ('mul', 'int8'): (0.2, 282.0),
  ('mul', 'int32'): (3.1, 3495.0),
  ('mul', 'fp16'): (1.1, 1640.0),
  ('mul', 'fp32'): (3.7, 7700.0),
}


def mac_luts(exponent: int, mantissa: int) -> float:
  """FPGA look-up tables of a multiply-accumulate of two ExMy, a proxy.

  With significands of p = M + 1 bits (for integers, E = 0, p = M magnitude
  bits): p^2 for their product, E for the exponents' sum, w for an exact
  accumulator of w = 2 p + 2 (2^E - 2) bits, all places that a product may fall
  on, and w E for the shifter that puts it there. Aggarwal et al., Shedding the
  Bits, 2023 (arXiv:2311.12359) compare synthesized units; this only ranks.

  Args:
    exponent: E, 0 for integers.
    mantissa: M; for integers the width without the sign.
  """
  if exponent < 0 or mantissa < 0 or exponent + mantissa < 1:
    raise ValueError(
      f'`exponent` and `mantissa` must not be negative, nor both 0; got '
      f'e{exponent}m{mantissa}.'
    )
  p = mantissa + (exponent > 0)
  shifts = 2 * max(2**exponent - 2, 0) if exponent else 0
  width = 2 * p + shifts
  return float(p**2 + exponent + width + width * exponent)


@dataclasses.dataclass(frozen=True)
class Machine:
  """What a product of a matrix and a few vectors takes."""

  bytes_per_s: float  # Of the memory that holds the weights.
  flops_per_s: float
  decodes_per_s: float  # Weights turned to float32, a second.


def product_time_s(
  machine: Machine, weights: int, bits: float, batch: int = 1
) -> float:
  """Seconds of y = W x: max(bytes / bandwidth, flops / peak) + decoding.

  float32 weights are not decoded. Rossi et al., Compressed Real Numbers for AI,
  2023 (arXiv:2309.07158).

  Args:
    machine: Its rates.
    weights: Elements of W.
    bits: Of a stored weight.
    batch: Vectors that share the weights.
  """
  memory = weights * bits / 8 / machine.bytes_per_s
  arithmetic = 2 * weights * batch / machine.flops_per_s
  decoding = weights / machine.decodes_per_s if bits < 32 else 0.0
  return max(memory, arithmetic) + decoding


def compression_pays(
  machine: Machine, weights: int, bits: float, batch: int = 1
) -> bool:
  """Whether stored weights of `bits` bits are faster than float32 ones."""
  return product_time_s(machine, weights, bits, batch) < product_time_s(
    machine, weights, 32, batch
  )
