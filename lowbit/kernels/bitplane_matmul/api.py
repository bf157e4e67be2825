"""bitplane_matmul: codes of any widths, multiplied bit by bit."""

import functools
import importlib

import jax

from lowbit.kernels import choice
from lowbit.kernels.bitplane_matmul import planes, reference, xla


def bitplane_matmul(
  x: planes.Planes,
  w: planes.Planes,
  *,
  implementation: choice.Implementation = None,
  interpret: bool = False,
) -> jax.Array:
  """Exact integer product of two matrices in bit planes (ABQ-LLM, DeepliteRT).

  Its work is proportional to bits of x times bits of w. arXiv:2408.08554,
  arXiv:2309.10878.

  Args:
    x: From `pack_planes(.., axis=-1)`: [M, K].
    w: From `pack_planes(.., axis=-2)`: [K, N].
    implementation: None for the best of the platform that the program is
      lowered for; 'tpu' and 'gpu' count bits on the vector units.
    interpret: Runs a Pallas kernel as plain JAX, for tests on any machine.

  Returns:
    int32 [M, N], exact while the result fits.

  Raises:
    TypeError: If an argument is no `Planes`.
    ValueError: If axes or lengths do not match, or the implementation cannot
      be.
  """
  for name, value, axis in (('x', x, -1), ('w', w, -2)):
    if not isinstance(value, planes.Planes):
      raise TypeError(
        f'`{name}` must be Planes, got {type(value).__name__}. Use pack_planes.'
      )
    want = -(-value.size // planes.WORD)
    if value.axis != axis or value.words.shape[axis] != want:
      raise ValueError(
        f'`{name}` must be packed along axis {axis} in {want} words for '
        f'{value.size} codes, got axis {value.axis} and {value.words.shape}.'
      )
  if x.size != w.size:
    raise ValueError(
      f'`x` has {x.size} columns and `w` {w.size} rows; they must match.'
    )
  options = _candidates(interpret)
  choice.check('bitplane_matmul', options, implementation, interpret, x, w)
  if implementation is None:
    choice.warn_fallback('bitplane_matmul', options, x, w)
  return _run(x, w, implementation, interpret)


@functools.partial(jax.jit, static_argnums=(2, 3))
def _run(x, w, implementation, interpret):
  return choice.run(_candidates(interpret), implementation, x, w)


def _candidates(interpret: bool) -> tuple[choice.Candidate, ...]:
  def on(name, module_name):
    module = lambda: importlib.import_module(
      f'lowbit.kernels.bitplane_matmul.{module_name}'
    )
    run = lambda x, w: module().bitplane_matmul(x, w, interpret=interpret)
    return choice.Candidate(name, run, lambda x, w: module().reasons(x, w))

  return (
    on('tpu', 'pallas_tpu'),
    on('gpu', 'pallas_gpu'),
    choice.Candidate('xla', xla.bitplane_matmul),
    choice.Candidate('reference', reference.bitplane_matmul),
  )
