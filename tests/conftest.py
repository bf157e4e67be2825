"""Settings for every test: strict dtype and rank promotion."""

import os

os.environ.setdefault('JAX_PLATFORMS', 'cpu')
# libtpu, which only compiles here, would look for a TPU's metadata server.
os.environ.setdefault('TPU_SKIP_MDS_QUERY', '1')
# And would let one process at a time load it, for want of TPUs to share.
os.environ.setdefault('ALLOW_MULTIPLE_LIBTPU_LOAD', '1')

import hypothesis
import jax
import pytest

# The same examples at every run: a failure is the change's.
hypothesis.settings.register_profile('fixed', derandomize=True, deadline=None)
hypothesis.settings.load_profile('fixed')
jax.config.update('jax_numpy_dtype_promotion', 'strict')
jax.config.update('jax_numpy_rank_promotion', 'raise')


@pytest.fixture(autouse=True, scope='module')
def _forget_programs():
  """Drops compiled programs behind each file: thousands fill the memory."""
  yield
  jax.clear_caches()
