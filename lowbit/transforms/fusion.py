"""Exact rewrites of an RMSNorm transformer's params: the logits stay.

All functions take and return a params tree with Flax kernels [..., in, out]
(leading axes are stacked layers), and compute in float32. Sources: QuaRot
(arXiv:2404.00456) for norms and rotations, SmoothQuant (arXiv:2211.10438) and
AWQ (arXiv:2306.00978) for scales.
"""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp

from lowbit.transforms import structure as structure_lib

Params = Mapping
get, replace = structure_lib.get, structure_lib.replace


def scale_rows(kernel: jax.Array, scale: jax.Array) -> jax.Array:
  """diag(scale) kernel: [..., in, out] by [..., in]."""
  return jnp.einsum('...io,...i->...io', kernel, scale.astype(kernel.dtype))


def scale_columns(kernel: jax.Array, scale: jax.Array) -> jax.Array:
  """kernel diag(scale): [..., in, out] by [..., out]."""
  return jnp.einsum('...io,...o->...io', kernel, scale.astype(kernel.dtype))


def fold_norms(params: Params, structure: structure_lib.Structure) -> dict:
  """Moves every norm's gain into the kernels that read it; gains become 1."""
  leaves = {}
  for norm, readers in structure.norms:
    gain = get(params, norm)
    leaves[norm] = jnp.ones_like(gain)
    leaves |= {r: scale_rows(get(params, r), gain) for r in readers}
  return replace(params, leaves)


def fold_scale(
  params: Params,
  structure: structure_lib.Structure,
  norm: str,
  scale: jax.Array,
) -> dict:
  """Divides a norm's gain by `scale` [..., width], multiplies its readers."""
  leaves = {norm: get(params, norm) / scale}
  for reader in structure.readers(norm):
    leaves[reader] = scale_rows(get(params, reader), scale)
  return replace(params, leaves)


def fold_pair(params: Params, up: str, down: str, scale: jax.Array) -> dict:
  """Divides the outputs of `up` by `scale`, multiplies the inputs of `down`."""
  leaves = {
    up: scale_columns(get(params, up), 1 / scale),
    down: scale_rows(get(params, down), scale),
  }
  for path in _biases(params, (up,)):
    bias = get(params, path)
    # Layers may be stacked, and share one scale.
    leaves[path] = bias / jnp.broadcast_to(scale, bias.shape)
  return replace(params, leaves)


def _biases(params: Params, kernels: tuple[str, ...]) -> list[str]:
  """The paths of the biases that lie beside kernels."""
  paths = [path.removesuffix('kernel') for path in kernels]
  return [f'{p}bias' for p in paths if 'bias' in get(params, p.rstrip('/'))]


def rotate_residual(
  params: Params,
  structure: structure_lib.Structure,
  rotation: Callable[[jax.Array], jax.Array],
) -> dict:
  """Rotates the residual stream: x -> x R everywhere (QuaRot's R1).

  Args:
    params: A tree whose norms are folded.
    structure: Where its tensors lie.
    rotation: x [..., width] -> x R, R orthogonal.

  Raises:
    ValueError: If a norm's gain is not 1: RMSNorm commutes with a rotation
      only then.
  """
  _check_folded(params, structure)
  rows = lambda w: jnp.swapaxes(rotation(jnp.swapaxes(w, -1, -2)), -1, -2)
  written = (*structure.writers, *_biases(params, structure.writers))
  if structure.embedding:
    written = (structure.embedding, *written)
  leaves = {path: rotation(get(params, path)) for path in written}
  for _, readers in structure.norms:
    leaves |= {r: rows(get(params, r)) for r in readers}  # R^T W.
  return replace(params, leaves)


def _check_folded(params, structure) -> None:
  gains = [get(params, norm) for norm, _ in structure.norms]
  if any(bool(jnp.any(gain != 1)) for gain in gains):
    raise ValueError(
      'A residual stream is rotated only behind norms of gain 1. Call '
      'fold_norms(params, structure) first.'
    )
