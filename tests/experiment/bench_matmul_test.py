"""What the suite says of a product agrees with what is known of it."""

import dataclasses

import jax
import pytest

from lowbit.experiment import bench_matmul, matmul_cases


@dataclasses.dataclass(frozen=True)
class Settings:
  size: int = 256
  repeats: int = 1

  def wants(self, case):
    return case == 'int4@g128 m16'


def test_a_row_counts_bytes_and_flops():
  (row,) = bench_matmul.rows(Settings())
  weights = 256 * 256 / 2 + 4 * 256 * 2  # Codes and float32 scales.
  must = weights + 2 * 2 * 16 * 256
  assert row['must_mb'] == pytest.approx(must / 1e6)
  assert row['gflop'] == pytest.approx(2 * 16 * 256**2 / 1e9)
  assert row['v5e_us'] == pytest.approx(must / 819e9 * 1e6)
  dense = 2 * (256 * 256 + 2 * 16 * 256)
  assert row['gain'] == pytest.approx(dense / must)
  assert row['ratio'] > 0


@pytest.mark.parametrize('case', matmul_cases.CASES, ids=lambda c: c.name)
def test_every_kernel_has_operands_it_takes(case):
  x, w = matmul_cases.shapes(case, 16, 1024)
  y = jax.eval_shape(case.run, x, w)
  assert jax.tree.leaves(y)[0].shape[0] == 16
  assert (w is not None) == case.has_weight


def test_experts_are_read_as_far_as_rows_reach():
  (case,) = (c for c in matmul_cases.CASES if c.name.startswith('experts'))
  assert case.read(1) == 1 / 8
  assert case.read(16) == 1


def test_many_rows_meet_the_other_roof():
  peak = bench_matmul.PEAKS['h100']
  assert peak.seconds(1.0, 989e12) == 1.0
  assert peak.seconds(3350e9, 1.0) == 1.0
