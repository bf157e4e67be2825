"""Orbax checkpoints of any tree: float, quantized or packed params."""

import os
import pathlib

import jax
import orbax.checkpoint as ocp


def save(path: str | os.PathLike, tree) -> None:
  """Writes a tree of arrays; QTensors and operators are trees as well.

  Args:
    path: A folder that does not exist yet.
    tree: Any pytree of arrays.

  Raises:
    ValueError: If `path` exists.
  """
  path = pathlib.Path(path).absolute()
  if path.exists():
    raise ValueError(f'`path` {path} exists. Give a new one, or remove it.')
  with ocp.StandardCheckpointer() as checkpointer:
    checkpointer.save(path, _leaves(tree))


def _leaves(tree) -> dict:
  """Every leaf under its path: static fields stay with the caller's tree."""
  leaves = jax.tree_util.tree_leaves_with_path(tree)
  return {jax.tree_util.keystr(path): leaf for path, leaf in leaves}


def restore(path: str | os.PathLike, like):
  """Reads a tree of the structure, shapes, dtypes and shardings of `like`.

  Args:
    path: What `save` wrote.
    like: A tree of arrays or of `jax.ShapeDtypeStruct`, with the static parts
      (specs) that a checkpoint does not hold; jax.eval_shape makes one.

  Raises:
    ValueError: If there is no checkpoint, or it does not fit `like`; the paths
      are named.
  """
  path = pathlib.Path(path).absolute()
  if not (path / '_CHECKPOINT_METADATA').is_file():
    raise ValueError(f'`path` {path} is not a finished checkpoint.')
  wanted = _leaves(like)
  with ocp.StandardCheckpointer() as checkpointer:
    found = checkpointer.metadata(path).item_metadata.tree
    _check(path, wanted, found)
    leaves = checkpointer.restore(path, wanted)
  structure = jax.tree.structure(like)
  return jax.tree.unflatten(structure, [leaves[key] for key in wanted])


def _check(path, wanted: dict, found: dict) -> None:
  missing = sorted(set(wanted) - set(found))
  extra = sorted(set(found) - set(wanted))
  wrong = [
    f'{key}: {found[key].dtype} {found[key].shape}, not {leaf.dtype} '
    f'{leaf.shape}'
    for key, leaf in wanted.items()
    if key in found
    and (
      tuple(found[key].shape) != leaf.shape or found[key].dtype != leaf.dtype
    )
  ]
  if missing or extra or wrong:
    raise ValueError(
      f'The checkpoint {path} does not fit `like`: missing {missing}, unknown '
      f'{extra}, different {wrong}.'
    )
