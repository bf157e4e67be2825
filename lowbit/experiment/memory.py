"""Memory that a long run no longer needs, given back between its parts."""

import ctypes
import gc


def release() -> None:
  """Collects garbage, and lets glibc return what is free.

  JAX's arrays die with the last reference, but a model's closures are cycles,
  and glibc keeps freed blocks of megabytes: gigabytes after a few recipes. On
  systems without malloc_trim only the first half happens.
  """
  gc.collect()
  try:
    trim = ctypes.CDLL(None).malloc_trim
  except (AttributeError, OSError, TypeError):
    return
  trim(0)
