"""Formats that need a little more than a scale for each block.

They are not encoded by themselves: the quantizer finds the side data of each
block, and stores it in `QTensor.side`.
"""

import dataclasses

import numpy as np

from lowbit.formats import base, minifloat, table


class SideFormat(base.Format):
  """Base of the formats with side data."""

  def encode(self, x, rounding='nearest', noise=None):
    """Raises: codes depend on the block's side data."""
    raise TypeError(
      f'{self.name} has side data for each block. Use lowbit.quantize(x, '
      f'{self.name + "@g128"!r}).'
    )

  decode = encode


@dataclasses.dataclass(frozen=True)
class Choice(SideFormat):
  """Each block takes the member that rounds it best.

  Attributes:
    name: Of the format.
    members: Formats of one width.
  """

  name: str
  members: tuple[base.Format, ...]

  def __post_init__(self):
    kinds = {(m.bits, m.storage_bits, m.code_dtype) for m in self.members}
    if len(kinds) != 1 or len(self.members) < 2:
      raise ValueError(
        f'`members` of {self.name} must be two formats or more, of one width '
        f'and code dtype; got {[m.name for m in self.members]}.'
      )

  @property
  def bits(self) -> int:
    """Bits of one code."""
    return self.members[0].bits

  @property
  def storage_bits(self) -> float:
    """Bits of one packed element."""
    return self.members[0].storage_bits

  @property
  def code_dtype(self) -> np.dtype:
    """dtype of the members' codes."""
    return self.members[0].code_dtype

  @property
  def side_bits(self) -> int:
    """Bits of a member's index."""
    return int(np.ceil(np.log2(len(self.members))))

  def values(self) -> np.ndarray:
    """Values of all members, sorted."""
    return np.unique(np.concatenate([m.values() for m in self.members]))


@dataclasses.dataclass(frozen=True)
class TwoSided(SideFormat):
  """Separate scales of the values above and below zero.

  Zhang et al., AFPQ, 2023 (arXiv:2311.01792).
  """

  inner: base.Format

  def __post_init__(self):
    fmt = self.inner
    if isinstance(fmt, (SideFormat, minifloat.Float32)):
      raise ValueError(
        'AFPQ takes a format of at most 16 bits without side data inside, got '
        f'{fmt.name}. Use for example afpq_e2m1.'
      )
    values = fmt.values()
    if not (values[0] < 0 < values[-1] and (values == 0).any()):
      raise ValueError(
        f'AFPQ needs a format with both signs and a zero, got {fmt.name}: its '
        'scales meet at zero. Use for example afpq_nf4.'
      )

  @property
  def name(self) -> str:
    """afpq_e2m1."""
    return f'afpq_{self.inner.name}'

  @property
  def bits(self) -> int:
    """Bits of one code."""
    return self.inner.bits

  @property
  def storage_bits(self) -> float:
    """Bits of one packed element."""
    return self.inner.storage_bits

  @property
  def code_dtype(self) -> np.dtype:
    """dtype of the inner format's codes."""
    return self.inner.code_dtype

  def values(self) -> np.ndarray:
    """Values of the inner format."""
    return self.inner.values()


def bitmod(bits: int) -> Choice:
  """BitMoD: a small float whose -0 is one of four special values.

  3 bits: {0, +-1, +-2, +-4} and +-3 or +-6; 4 bits: E2M1 in halves, {0, +-1,
  .., +-12}, and +-10 or +-16. Chen et al., 2024 (arXiv:2411.11745).
  """
  specials = {3: (3, -3, 6, -6), 4: (10, -10, 16, -16)}
  if bits not in specials:
    raise ValueError(f'`bits` of BitMoD must be 3 or 4, got {bits}.')
  base_format = minifloat.Minifloat(2, bits - 3)
  values = base_format.values() * 2.0 ** (bits - 3) + 0.0  # One zero.
  members = tuple(
    table.Table(f'bitmod{bits}_{s}', bits, tuple(sorted([*values, float(s)])))
    for s in specials[bits]
  )
  return Choice(f'bitmod{bits}', members)


def affine_dint(bits: int) -> Choice:
  """dINT with a zero point for each block: codes 1 .. 2^b - 2 and two halves.

  The members are {q - z} and +-1/2, one for every zero point z in 1 .. 2^b - 2,
  so that each block takes the z that errs least: stored, like that of affine
  integers, in b bits. Lee et al., 2023 (arXiv:2311.05161), who print neither
  how z is found nor the thresholds, which are the mid-points here.
  """
  if not 3 <= bits <= 5:
    raise ValueError(f'`bits` of affine dINT must lie in 3..5, got {bits}.')
  last = 2**bits - 2
  members = tuple(
    table.Table(
      f'adint{bits}_{z}',
      bits,
      tuple(sorted([-0.5, 0.5, *(float(q - z) for q in range(1, last + 1))])),
    )
    for z in range(1, last + 1)
  )
  return Choice(f'adint{bits}', members)
