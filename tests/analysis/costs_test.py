import pytest

from lowbit.analysis import costs


def test_the_published_ratios():
  energy = lambda *key: costs.OPERATIONS[key][0]
  area = lambda *key: costs.OPERATIONS[key][1]
  assert energy('add', 'fp32') / energy('add', 'int8') == pytest.approx(30)
  assert round(area('add', 'fp32') / area('add', 'int8')) == 116
  assert energy('mul', 'fp32') / energy('mul', 'int8') == pytest.approx(18.5)


def test_logic_grows_with_both_fields():
  assert costs.mac_luts(0, 3) == 15  # int4: 9 + 6.
  assert costs.mac_luts(2, 1) == 4 + 2 + 8 + 16  # e2m1.
  for e in range(1, 6):
    for m in range(1, 6):
      assert costs.mac_luts(e + 1, m) > costs.mac_luts(e, m)
      assert costs.mac_luts(e, m + 1) > costs.mac_luts(e, m)
  with pytest.raises(ValueError, match='nor both 0'):
    costs.mac_luts(0, 0)


def test_compression_pays_where_memory_waits():
  machine = costs.Machine(1e9, 1e10, 1e9)
  # 8 bits save 3 bytes a weight, 3 ns; decoding takes 1 ns.
  assert costs.compression_pays(machine, 1000, 8)
  # With 64 vectors arithmetic takes 12.8 ns: nothing to save.
  assert not costs.compression_pays(machine, 1000, 8, batch=64)
  # A decoder slower than the saved bytes.
  slow = costs.Machine(1e9, 1e10, 0.3e9)
  assert not costs.compression_pays(slow, 1000, 8)
  assert costs.product_time_s(machine, 1000, 32) == pytest.approx(4e-6)
