"""Damaged files, for the fuzz tests of readers."""

import struct
import tracemalloc

from hypothesis import strategies as st

NUMBERS = (0, 1, 2, 7, 31, 32, 255, 2**16, 2**31, 2**32 - 1, 2**62, 2**64 - 1)


@st.composite
def damaged(draw, raw: bytes):
  """`raw` with one to three places changed, cut out, doubled or cut off."""
  for _ in range(draw(st.integers(1, 3))):
    at = draw(st.integers(0, max(len(raw) - 1, 0)))
    kind = draw(st.sampled_from(['byte', 'u32', 'u64', 'cut', 'twice', 'end']))
    length = draw(st.integers(1, 40))
    if kind == 'byte':
      new = bytes([draw(st.integers(0, 255))])
      raw = raw[:at] + new + raw[at + 1 :]
    elif kind in ('u32', 'u64'):
      form = '<I' if kind == 'u32' else '<Q'
      size = struct.calcsize(form)
      number = draw(st.sampled_from(NUMBERS)) % 2 ** (8 * size)
      raw = raw[:at] + struct.pack(form, number) + raw[at + size :]
    elif kind == 'cut':
      raw = raw[:at] + raw[at + length :]
    elif kind == 'twice':
      raw = raw[: at + length] + raw[at:]
    else:
      raw = raw[:at]
  return raw


def only_value_errors(function, limit: int = 8 * 2**20) -> bool:
  """Whether `function()` returns; it may raise ValueError, nothing else.

  Nor may it take more than `limit` bytes at once.
  """
  tracemalloc.start()
  try:
    function()
    whole = True
  except ValueError:
    whole = False
  finally:
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
  assert peak < limit
  return whole
