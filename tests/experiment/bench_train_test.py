from lowbit.experiment import bench_train


def test_rows_compare_time_and_bytes():
  rows = {r['case']: r for r in bench_train.rows(((64, 128),), repeats=1)}
  assert set(rows) == set(bench_train.pairs())
  eight = rows['adamw8bit']
  # Codes, a float32 for each 256, the count: a quarter and 1 / 64.
  assert 0.25 < eight['bytes_ratio'] < 0.27
  assert rows['adamw4bit']['bytes_ratio'] < 0.16
  assert all(r['ms'] > 0 and r['time_ratio'] > 0 for r in rows.values())


def test_calls_take_turns_and_the_least_counts():
  ticks = iter([0.0, 5.0, 5.0, 6.0, 6.0, 9.0, 9.0, 13.0])
  order = []
  calls = [lambda: order.append('a'), lambda: order.append('b')]
  least = bench_train.least_seconds(calls, 2, lambda: next(ticks))
  assert order == ['a', 'b'] * 3
  assert least == [3.0, 1.0]
