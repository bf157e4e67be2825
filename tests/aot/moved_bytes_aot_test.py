"""Programs for TPUs move little more than their operands, once each."""

import pytest

from lowbit.experiment import bench_matmul, matmul_cases

NAMED = {case.name: case for case in matmul_cases.CASES}
INTEGERS = (
  'w8a8',
  'w4a8',
  'w4a8 g128 in two stages',
  'w4a4 g128',
  'w4a4 with 128 w8a8',
)
OTHERS = (
  'experts int4@g128',
  'planes w2a4',
  'lookup int2@g128',
  'lookup gemm w2a2',
  'hadamard',
  'hadamard to int8',
  'int8@token',
)


def check(name, m, size=4096):
  case = NAMED[name]
  must = bench_matmul.necessary(case, m, size)
  assert bench_matmul.moved(case, m, size) <= 1.15 * must


@pytest.mark.parametrize('name', [*INTEGERS, 'bitnet 1.6', *OTHERS])
@pytest.mark.parametrize('m', [1, 16, 2048])
def test_all_kernels(name, m):
  check(name, m)
