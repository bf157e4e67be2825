"""NVFP4's second level as compressed-tensors has it: a divisor.

Scales of 16 weights are e4m3 times g here, and e4m3 over G there, both rounded
to float32. G = 1 / g gives the same numbers for about one g in five, and for
all powers of two; the others lie a few units in the last place from such a g.
"""

import dataclasses

import jax
import numpy as np

from lowbit import formats, quantize

REACH = 4096  # Units in the last place: 5e-4 of g at the most.
_SIGNIFICANDS = np.arange(8, 16, dtype=np.float32)  # Of e4m3.


def is_nvfp4(spec: quantize.Spec) -> bool:
  """Whether it has NVFP4's two levels, whatever rules find the scales."""
  second = spec.scale_format
  return (
    isinstance(second, quantize.Spec)
    and (spec.format, spec.block) == (formats.get('e2m1'), 16)
    and (second.format, second.block) == (formats.get('e4m3'), 'tensor')
    and second.scale_format is None
    and not (spec.zero_point or second.zero_point)
  )


def divisor(q: quantize.QTensor) -> np.ndarray | None:
  """G [1] of an NVFP4 matrix, if e4m3 / G gives its scales bit for bit."""
  inner = q.scale
  factor = np.asarray(inner.scale, np.float32)
  if factor.size != 1:
    return None
  with np.errstate(all='ignore'):
    found = np.float32(1) / factor.reshape(1)
    codes = inner.spec.format.decode(inner.codes)
    got = np.asarray(codes, np.float32) / found
  same = np.isfinite(found) & np.array_equal(got, quantize.scales_of(q))
  return found if same.all() else None


def settle(params):
  """Moves second-level scales of NVFP4 to the nearest that have a divisor.

  By a few units in the last place of float32 (the weights by the same share,
  about 1e-7); codes and the scales of blocks stay. For
  `compressed_tensors.save`, which changes no number.

  Args:
    params: Tree with QTensors or operators, packed or not.

  Returns:
    The tree; what is no NVFP4 is as it was.
  """
  held = (quantize.QTensor, quantize.PackedQTensor)
  is_held = lambda x: isinstance(x, held)
  return jax.tree.map(
    lambda x: _settled(x) if is_held(x) and is_nvfp4(x.spec) else x,
    params,
    is_leaf=is_held,
  )


def _settled(q):
  factor = np.asarray(q.scale.scale, np.float32)
  moved = np.asarray([_nearest(g) for g in factor.ravel()], np.float32)
  moved = jax.numpy.asarray(moved.reshape(factor.shape))
  return dataclasses.replace(q, scale=dataclasses.replace(q.scale, scale=moved))


def _nearest(factor: np.float32) -> np.float32:
  """The nearest float32 whose reciprocal divides as it multiplies."""
  steps = np.arange(-REACH, REACH + 1, dtype=np.int32)
  steps = steps[np.argsort(np.abs(steps), kind='stable')]
  near = (factor.view(np.int32) + steps).view(np.float32)[:, None]
  with np.errstate(all='ignore'):
    over = _SIGNIFICANDS / (np.float32(1) / near)
  same = (over == _SIGNIFICANDS * near).all(axis=1)
  return near[np.argmax(same), 0]
