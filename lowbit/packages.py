"""Packages that are called by the name of their main function.

`lb.quantize(x, spec)` is a function of the public surface, `lowbit.quantize`
the package it lives in. Both are one object: a module whose class has a call.
"""

import sys
import types
from collections.abc import Callable


def make_callable(name: str, function: Callable) -> None:
  """Makes the imported package `name` callable as `function`."""
  # As static methods, or else the first argument is taken for a self.
  static = staticmethod(function)
  module = sys.modules[name]
  module.__class__ = type(
    'CallablePackage',
    (types.ModuleType,),
    {'__call__': static, '__wrapped__': static},
  )
