"""The compilers exist for Linux x86-64 only; there, extra `test` has them."""

import platform

if (platform.system(), platform.machine()) != ('Linux', 'x86_64'):
  collect_ignore_glob = ['*_test.py']
